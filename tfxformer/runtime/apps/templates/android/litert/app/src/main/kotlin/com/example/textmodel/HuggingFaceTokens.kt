package com.example.textmodel

import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer
import java.io.InputStream
import textmodel.Pieces
import textmodel.Tokenizer

/** tokenizer.json, read by Hugging Face's own library through DJL. */
class HuggingFaceTokens(file: InputStream) : Tokenizer {
    private val tokenizer: HuggingFaceTokenizer

    init {
        System.setProperty("OPT_OUT_TRACKING", "true") // DJL counts its users where it can
        val options = mapOf("addSpecialTokens" to "false", "truncation" to "false", "padding" to "false")
        tokenizer = file.use { HuggingFaceTokenizer.newInstance(it, options) }
    }

    override fun pieces(text: String): Pieces {
        val encoding = tokenizer.encode(text, false, false)
        val ids = encoding.ids
        val spans = encoding.charTokenSpans
        return Pieces(
            IntArray(ids.size) { ids[it].toInt() },
            IntArray(ids.size) { spans[it]?.start ?: 0 },
            IntArray(ids.size) { spans[it]?.end ?: 0 },
        )
    }

    override fun decode(ids: IntArray): String = tokenizer.decode(LongArray(ids.size) { ids[it].toLong() }, true)

    override fun close() = tokenizer.close()
}
