package com.example.textmodel

import android.content.Context
import textmodel.Decoder
import textmodel.ModelInfo
import textmodel.TextGenerator
import textmodel.Tokenizer

/** The language model in model.tflite. */
class TextModel(context: Context) : AutoCloseable {
    val info = ModelInfo(context.asset("model.json"))
    val tokenizer: Tokenizer = HuggingFaceTokens(context.assets.open("tokenizer.json"))
    val runner: Decoder = LiteRTDecoder(context.interpreter(), info)
    private val generator = TextGenerator(info, tokenizer, runner)

    /** The text that follows a prompt; [onPiece] gets its pieces as they come, and ends it by false. */
    fun generate(prompt: String, maxNewTokens: Int = 64, onPiece: (String) -> Boolean = { true }): String =
        generator.generate(prompt, maxNewTokens, onPiece)

    /** What the example shows. */
    fun answer(text: String) = text + generate(text)

    override fun close() {
        runner.close()
        tokenizer.close()
    }

    companion object {
        const val HINT = "The beginning of a text"
    }
}
