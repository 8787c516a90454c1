package com.example.textmodel

import android.content.Context
import textmodel.Answer
import textmodel.Model
import textmodel.ModelInfo
import textmodel.QuestionAnswering
import textmodel.Tokenizer

/** The model in model.tflite that finds answers. */
class TextModel(context: Context) : AutoCloseable {
    val info = ModelInfo(context.asset("model.json"))
    val tokenizer: Tokenizer = HuggingFaceTokens(context.assets.open("tokenizer.json"))
    val runner: Model = LiteRTModel(context.interpreter())
    private val answering = QuestionAnswering(info, tokenizer, runner)

    /** The best answers to a question in a context, best first. */
    fun answers(question: String, context: String, count: Int = 1): List<Answer> =
        answering.answers(question, context, count)

    /** What the example shows. */
    fun answer(text: String): String {
        val found = answers(text.lines().first(), text.lines().drop(1).joinToString("\n"))
        return found.firstOrNull()?.text ?: "no answer"
    }

    override fun close() {
        runner.close()
        tokenizer.close()
    }

    companion object {
        const val HINT = "A question, and below it the text with the answer"
    }
}
