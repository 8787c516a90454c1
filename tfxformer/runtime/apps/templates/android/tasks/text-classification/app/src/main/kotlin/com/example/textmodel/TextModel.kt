package com.example.textmodel

import android.content.Context
import textmodel.Category
import textmodel.Model
import textmodel.ModelInfo
import textmodel.TextClassifier
import textmodel.Tokenizer

/** The classifier in model.tflite. */
class TextModel(context: Context) : AutoCloseable {
    val info = ModelInfo(context.asset("model.json"))
    val tokenizer: Tokenizer = HuggingFaceTokens(context.assets.open("tokenizer.json"))
    val runner: Model = LiteRTModel(context.interpreter())
    private val classifier = TextClassifier(info, tokenizer, runner)

    /** Every label of a text (or a pair of texts) with its probability, the likeliest first. */
    fun classify(text: String, pair: String? = null): List<Category> = classifier.classify(text, pair)

    /** What the example shows. */
    fun answer(text: String) = classify(text).joinToString("\n") { "${it.label} ${"%.3f".format(it.score)}" }

    override fun close() {
        runner.close()
        tokenizer.close()
    }

    companion object {
        const val HINT = "A text"
    }
}
