package com.example.textmodel

import android.content.Context
import com.google.mediapipe.tasks.text.textembedder.TextEmbedder
import textmodel.cosineSimilarity

/** The embedder in model.tflite, which carries what MediaPipe needs to read texts. */
class TextModel(context: Context) : AutoCloseable {
    private val embedder = TextEmbedder.createFromFile(context, "model.tflite")

    /** The vector of a text; of two of them [cosineSimilarity] says how alike the texts are. */
    fun embed(text: String): FloatArray =
        embedder.embed(text).embeddingResult().embeddings().first().floatEmbedding()

    /** What the example shows: how alike each line is to the first. */
    fun answer(text: String): String {
        val lines = text.lines().filter { it.isNotBlank() }
        val vectors = lines.map { embed(it) }
        return lines.indices.drop(1).sortedByDescending { cosineSimilarity(vectors[0], vectors[it]) }
            .joinToString("\n") { "${"%.3f".format(cosineSimilarity(vectors[0], vectors[it]))} ${lines[it]}" }
    }

    override fun close() = embedder.close()

    companion object {
        const val HINT = "A text, and below it others to compare it with, a line each"
    }
}
