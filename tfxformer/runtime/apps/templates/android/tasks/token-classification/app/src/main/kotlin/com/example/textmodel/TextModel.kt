package com.example.textmodel

import android.content.Context
import textmodel.Entity
import textmodel.Model
import textmodel.ModelInfo
import textmodel.TokenClassifier
import textmodel.Tokenizer

/** The tagger in model.tflite. */
class TextModel(context: Context) : AutoCloseable {
    val info = ModelInfo(context.asset("model.json"))
    val tokenizer: Tokenizer = HuggingFaceTokens(context.assets.open("tokenizer.json"))
    val runner: Model = LiteRTModel(context.interpreter())
    private val tagger = TokenClassifier(info, tokenizer, runner)

    /** The label of each word. */
    fun tag(words: List<String>): List<String?> = tagger.tag(words)

    /** The entities of a text. */
    fun entities(text: String): List<Entity> = tagger.entities(text)

    /** What the example shows. */
    fun answer(text: String) = entities(text)
        .joinToString("\n") { "${it.label} ${it.text} ${"%.3f".format(it.score)}" }.ifEmpty { "no entity" }

    override fun close() {
        runner.close()
        tokenizer.close()
    }

    companion object {
        const val HINT = "A text"
    }
}
