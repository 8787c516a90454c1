package com.example.textmodel

import android.content.Context
import com.google.mediapipe.tasks.text.textclassifier.TextClassifier
import textmodel.Category

/** The classifier in model.tflite, which carries what MediaPipe needs to read texts. */
class TextModel(context: Context) : AutoCloseable {
    private val classifier = TextClassifier.createFromFile(context, "model.tflite")

    /** Every label of a text with its probability, the likeliest first. */
    fun classify(text: String): List<Category> =
        classifier.classify(text).classificationResult().classifications().first().categories()
            .map { Category(it.categoryName(), it.score()) }

    /** What the example shows. */
    fun answer(text: String) = classify(text).joinToString("\n") { "${it.label} ${"%.3f".format(it.score)}" }

    override fun close() = classifier.close()

    companion object {
        const val HINT = "A text"
    }
}
