// What lies between tokenizer and file, without Android: it is tested on any machine.
plugins {
    alias(libs.plugins.kotlin.jvm)
}

java {
    sourceCompatibility = JavaVersion.VERSION_17
    targetCompatibility = JavaVersion.VERSION_17
}

kotlin {
    compilerOptions {
        jvmTarget = org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_17
    }
    sourceSets["test"].kotlin.srcDir("src/vectors/kotlin")
}

dependencies {
    implementation(libs.json)
    testImplementation(libs.junit)
}
