plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "com.example.textmodel"
    compileSdk = 36

    defaultConfig {
        applicationId = "com.example.textmodel"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "1.0"
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
        externalNativeBuild {
            cmake {
                arguments += "-DANDROID_STL=c++_shared"
            }
        }
    }

    androidResources {
        noCompress += "tflite" // the file is mapped, not read
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    // The native tokenizer needs libc++_shared.so, which comes with a native library of ours.
    externalNativeBuild {
        cmake {
            path = file("src/main/cpp/CMakeLists.txt")
        }
    }

    packaging {
        resources {
            excludes += "native/lib/**" // the tokenizer for desktops
        }
    }

    sourceSets["androidTest"].apply {
        kotlin.srcDir("../answers/src/vectors/kotlin")
        assets.srcDir("../answers/src/test/resources")
    }
}

kotlin {
    compilerOptions {
        jvmTarget = org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_17
    }
}

dependencies {
    implementation(project(":answers"))
    implementation(libs.json)
    implementation(libs.litert)
    implementation(libs.djl.tokenizers)
    runtimeOnly(libs.djl.tokenizer.native)
    androidTestImplementation(libs.androidx.junit)
    androidTestImplementation(libs.androidx.runner)
}
