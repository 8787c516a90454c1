package com.example.textmodel

import android.content.Context
import textmodel.Model
import textmodel.ModelInfo
import textmodel.TextEmbedder
import textmodel.Tokenizer
import textmodel.cosineSimilarity

/** The embedder in model.tflite. */
class TextModel(context: Context) : AutoCloseable {
    val info = ModelInfo(context.asset("model.json"))
    val tokenizer: Tokenizer = HuggingFaceTokens(context.assets.open("tokenizer.json"))
    val runner: Model = LiteRTModel(context.interpreter())
    private val embedder = TextEmbedder(info, tokenizer, runner)

    /** The vector of a text; of two of them [cosineSimilarity] says how alike the texts are. */
    fun embed(text: String, promptName: String? = null): FloatArray = embedder.embed(text, promptName)

    /** What the example shows: how alike each line is to the first. */
    fun answer(text: String): String {
        val lines = text.lines().filter { it.isNotBlank() }
        val vectors = lines.map { embed(it) }
        return lines.indices.drop(1).sortedByDescending { cosineSimilarity(vectors[0], vectors[it]) }
            .joinToString("\n") { "${"%.3f".format(cosineSimilarity(vectors[0], vectors[it]))} ${lines[it]}" }
    }

    override fun close() {
        runner.close()
        tokenizer.close()
    }

    companion object {
        const val HINT = "A text, and below it others to compare it with, a line each"
    }
}
