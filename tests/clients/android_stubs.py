# ruff: noqa: E501 (Java in one line a class)
"""Classes of Android, LiteRT, DJL, MediaPipe and JUnit as the generated project uses them, without their work.

The real ones are not to be had here. These say what their documentation says of the methods that are called, so that
a compiler finds what is misspelt or of a wrong type in the project's own code; whether they say it rightly, only a
build with the libraries shows.
"""

from pathlib import Path

CLASSES = {
    "android.content.Context": "public class Context { public android.content.res.AssetManager getAssets() { return null; }"
    " public Context getApplicationContext() { return this; } }",
    "android.content.res.AssetManager": "public class AssetManager {"
    " public java.io.InputStream open(String name) throws java.io.IOException { return null; }"
    " public AssetFileDescriptor openFd(String name) throws java.io.IOException { return null; } }",
    "android.content.res.AssetFileDescriptor": "public class AssetFileDescriptor implements java.io.Closeable {"
    " public java.io.FileDescriptor getFileDescriptor() { return null; } public long getStartOffset() { return 0; }"
    " public long getDeclaredLength() { return 0; } public void close() throws java.io.IOException {} }",
    "android.os.Bundle": "public class Bundle {}",
    "android.app.Activity": "public class Activity extends android.content.Context {"
    " protected void onCreate(android.os.Bundle state) {} protected void onDestroy() {}"
    " public void setContentView(android.view.View view) {} public final void runOnUiThread(Runnable action) {} }",
    "android.view.View": "public class View { public View(android.content.Context context) {}"
    " public void setEnabled(boolean enabled) {} public boolean isEnabled() { return true; }"
    " public void setFitsSystemWindows(boolean fits) {} public boolean getFitsSystemWindows() { return true; }"
    " public void setOnClickListener(OnClickListener listener) {}"
    " public interface OnClickListener { void onClick(View view); } }",
    "android.view.ViewGroup": "public class ViewGroup extends View {"
    " public ViewGroup(android.content.Context context) { super(context); } public void addView(View child) {} }",
    "android.widget.LinearLayout": "public class LinearLayout extends android.view.ViewGroup {"
    " public static final int VERTICAL = 1; public LinearLayout(android.content.Context context) { super(context); }"
    " public void setOrientation(int orientation) {} public int getOrientation() { return 0; } }",
    "android.widget.ScrollView": "public class ScrollView extends android.view.ViewGroup {"
    " public ScrollView(android.content.Context context) { super(context); } }",
    "android.widget.TextView": "public class TextView extends android.view.View {"
    " public TextView(android.content.Context context) { super(context); }"
    " public final void setText(CharSequence text) {} public final void setText(int id) {}"
    " public CharSequence getText() { return null; } public final void setHint(CharSequence hint) {}"
    " public CharSequence getHint() { return null; } public void setTextIsSelectable(boolean selectable) {} }",
    "android.widget.Button": "public class Button extends TextView {"
    " public Button(android.content.Context context) { super(context); } }",
    "android.widget.EditText": "public class EditText extends TextView {"
    " public EditText(android.content.Context context) { super(context); } }",
    "com.example.textmodel.R": "public final class R { public static final class string {"
    " public static final int app_name = 1; public static final int run = 2; } }",
    "org.tensorflow.lite.Tensor": "public interface Tensor { int numBytes(); }",
    "org.tensorflow.lite.Interpreter": "public final class Interpreter implements AutoCloseable {"
    " public Interpreter(java.nio.ByteBuffer file, Options options) {}"
    " public void runSignature(java.util.Map<String, Object> inputs, java.util.Map<String, Object> outputs, String key) {}"
    " public String[] getSignatureOutputs(String key) { return null; }"
    " public Tensor getOutputTensorFromSignature(String output, String key) { return null; } public void close() {}"
    " public static class Options { public Options setNumThreads(int count) { return this; }"
    " public int getNumThreads() { return 0; } } }",
    "ai.djl.huggingface.tokenizers.jni.CharSpan": "public class CharSpan {"
    " public int getStart() { return 0; } public int getEnd() { return 0; } }",
    "ai.djl.huggingface.tokenizers.Encoding": "public class Encoding { public long[] getIds() { return null; }"
    " public ai.djl.huggingface.tokenizers.jni.CharSpan[] getCharTokenSpans() { return null; } }",
    "ai.djl.huggingface.tokenizers.HuggingFaceTokenizer": "public final class HuggingFaceTokenizer implements AutoCloseable {"
    " public static HuggingFaceTokenizer newInstance(java.io.InputStream file, java.util.Map<String, String> options)"
    " throws java.io.IOException { return null; } public void close() {}"
    " public Encoding encode(String text, boolean specialTokens, boolean overflow) { return null; }"
    " public String decode(long[] ids, boolean skipSpecialTokens) { return null; } }",
    "com.google.mediapipe.tasks.components.containers.Category": "public abstract class Category {"
    " public abstract float score(); public abstract String categoryName(); }",
    "com.google.mediapipe.tasks.components.containers.Classifications": "public abstract class Classifications {"
    " public abstract java.util.List<Category> categories(); }",
    "com.google.mediapipe.tasks.components.containers.ClassificationResult": "public abstract class ClassificationResult {"
    " public abstract java.util.List<Classifications> classifications(); }",
    "com.google.mediapipe.tasks.components.containers.Embedding": "public abstract class Embedding {"
    " public abstract float[] floatEmbedding(); }",
    "com.google.mediapipe.tasks.components.containers.EmbeddingResult": "public abstract class EmbeddingResult {"
    " public abstract java.util.List<Embedding> embeddings(); }",
    "com.google.mediapipe.tasks.text.textclassifier.TextClassifierResult": "public abstract class TextClassifierResult {"
    " public abstract com.google.mediapipe.tasks.components.containers.ClassificationResult classificationResult(); }",
    "com.google.mediapipe.tasks.text.textclassifier.TextClassifier": "public final class TextClassifier"
    " implements AutoCloseable { public void close() {} public TextClassifierResult classify(String text) { return null; }"
    " public static TextClassifier createFromFile(android.content.Context context, String path) { return null; } }",
    "com.google.mediapipe.tasks.text.textembedder.TextEmbedderResult": "public abstract class TextEmbedderResult {"
    " public abstract com.google.mediapipe.tasks.components.containers.EmbeddingResult embeddingResult(); }",
    "com.google.mediapipe.tasks.text.textembedder.TextEmbedder": "public final class TextEmbedder"
    " implements AutoCloseable { public void close() {} public TextEmbedderResult embed(String text) { return null; }"
    " public static TextEmbedder createFromFile(android.content.Context context, String path) { return null; } }",
    "org.junit.Test": "public @interface Test {}",
    "org.junit.runner.RunWith": "public @interface RunWith { Class<?> value(); }",
    "org.junit.Assert": "public class Assert { public static void assertEquals(Object wanted, Object found) {}"
    " public static void assertEquals(String what, float wanted, float found, float delta) {} }",
    "androidx.test.ext.junit.runners.AndroidJUnit4": "public final class AndroidJUnit4 {}",
    "android.app.Instrumentation": "public class Instrumentation {"
    " public android.content.Context getContext() { return null; }"
    " public android.content.Context getTargetContext() { return null; } }",
    "androidx.test.platform.app.InstrumentationRegistry": "public final class InstrumentationRegistry {"
    " public static android.app.Instrumentation getInstrumentation() { return null; } }",
}  # fmt: skip


def write(folder: Path) -> Path:
    """Writes each class as a Java file into a folder, which is returned."""
    for name, body in CLASSES.items():
        package, _, short = name.rpartition(".")
        path = folder.joinpath(*package.split("."), f"{short}.java")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"package {package};\n\n{body}\n", encoding="utf-8")
    return folder
