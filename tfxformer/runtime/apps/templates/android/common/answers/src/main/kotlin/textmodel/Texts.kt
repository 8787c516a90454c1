package textmodel

/** A label and its probability; of a regression, a score. */
data class Category(val label: String, val score: Float)

/** Classifies texts, or pairs of texts. */
class TextClassifier(private val info: ModelInfo, private val tokenizer: Tokenizer, private val model: Model) {
    /** Every label with its probability, the likeliest first. */
    fun classify(text: String, pair: String? = null): List<Category> =
        scores(text, pair).mapIndexed { index, score -> Category(label(index), score) }.sortedByDescending { it.score }

    /** The probabilities in the order of the file's labels. */
    fun scores(text: String, pair: String? = null): FloatArray {
        val first = tokenizer.pieces(text).ids
        return model.run(info, if (pair == null) info.row(first) else info.row(first, tokenizer.pieces(pair).ids))
    }

    private fun label(index: Int) = info.labels.getOrElse(index) { index.toString() }
}

/** Makes vectors of texts; compare them by [cosineSimilarity]. */
class TextEmbedder(private val info: ModelInfo, private val tokenizer: Tokenizer, private val model: Model) {
    /** The vector of a text; [promptName] is one of the names in model.json. */
    fun embed(text: String, promptName: String? = null): FloatArray {
        val prompt = if (promptName == null) info.defaultPrompt else info.prompts.getValue(promptName)
        val row = info.row(tokenizer.pieces(prompt + text).ids)
        return model.run(info, row, hidden = if (info.pooledMask == null) 0 else hidden(prompt))
    }

    /** The tokens of a prompt, but for a special one at its end. */
    private fun hidden(prompt: String): Int {
        if (prompt.isEmpty()) return 0
        val count = info.single.count + tokenizer.pieces(prompt).ids.size
        return if (info.single.after.isEmpty()) count else count - 1
    }
}
