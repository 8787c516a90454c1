package textmodel

/** A piece of a text: `text.substring(start, end)` of the text that was read. */
data class Entity(val text: String, val label: String, val score: Float, val start: Int, val end: Int)

/** Labels words, and finds the entities that they make. */
class TokenClassifier(private val info: ModelInfo, private val tokenizer: Tokenizer, private val model: Model) {
    /** The label of each word; null for a word without a token, where the file has no label "O". */
    fun tag(words: List<String>): List<String?> = probabilities(words).map(::label)

    /** The entities of a text. */
    fun entities(text: String): List<Entity> {
        val words = words(text)
        val scores = probabilities(words.map { it.text })
        val tags = scores.map { label(it) ?: OUTSIDE }
        return entitySpans(tags).map { (label, first, last) ->
            val start = text.place(words[first].start)
            val end = text.place(words[last].end)
            val known = (first..last).mapNotNull { scores[it]?.max() }
            Entity(text.substring(start, end), label, known.average().toFloat(), start, end)
        }
    }

    private fun label(scores: FloatArray?) =
        if (scores == null) OUTSIDE.takeIf { it in info.labels } else info.labels[largest(scores)]

    /** The probabilities of the first token of each word, each from the window with most of its context. */
    private fun probabilities(words: List<String>): List<FloatArray?> {
        val pieces = words.map { tokenizer.pieces(info.wordPrefix + it).ids }
        val ids = pieces.fold(IntArray(0)) { all, one -> all + one }
        val firsts = pieces.runningFold(0) { count, one -> count + one.size }
        val found = arrayOfNulls<FloatArray>(words.size)
        val rooms = IntArray(words.size) { -1 }
        val longest = info.signatures.last().length
        for (window in windows(ids.size, longest - info.single.count, minOf(longest / 4, 128))) {
            val before = info.single.before
            val whole = before + ids.copyOfRange(window.start, window.end) + info.single.after
            val row = Row(whole, IntArray(whole.size))
            val logits = model.run(info, row)
            val columns = info.columns(logits, row)
            for (word in words.indices) {
                val piece = firsts[word]
                if (pieces[word].isEmpty() || piece !in window.start until window.end) continue
                val room = window.room(piece)
                if (room <= rooms[word]) continue
                val place = (before.size + piece - window.start) * columns
                found[word] = softmax(logits.copyOfRange(place, place + columns))
                rooms[word] = room
            }
        }
        return found.toList()
    }
}

internal const val OUTSIDE = "O"
private val PREFIXES = setOf("B-", "I-", "E-", "S-", "L-", "U-")

/** A run of words that is an entity: [last] is the last of them. */
data class EntitySpan(val label: String, val first: Int, val last: Int)

/** The entities of tags: BIO, IOB, IOBES or BILOU; of labels without such prefixes, each run of equal ones. */
fun entitySpans(labels: List<String>): List<EntitySpan> {
    val tags = if (labels.all { it == OUTSIDE || it.take(2) in PREFIXES }) labels else plain(labels)
    val found = mutableListOf<EntitySpan>()
    var start = 0
    var before = OUTSIDE
    for ((index, tag) in (tags + OUTSIDE).withIndex()) {
        val goesOn = before != OUTSIDE && before[0] !in "ESLU" && tag[0] !in "BSUO" && tag.drop(2) == before.drop(2)
        if (before != OUTSIDE && !goesOn) found.add(EntitySpan(before.drop(2).ifEmpty { "_" }, start, index - 1))
        if (!goesOn) start = index
        before = tag
    }
    return found
}

private fun plain(labels: List<String>) = labels.mapIndexed { index, label ->
    val goesOn = index > 0 && labels[index - 1] == label
    if (label == OUTSIDE) label else (if (goesOn) "I-" else "B-") + label
}
