// libdjl_tokenizer.so links libc++_shared.so, which its package does not bring. A library that uses a symbol of it
// makes the Android Gradle plugin put it into the app.
#include <string>

extern "C" int shared_runtime_length(const char* text) {
  return static_cast<int>(std::string(text).size());
}
