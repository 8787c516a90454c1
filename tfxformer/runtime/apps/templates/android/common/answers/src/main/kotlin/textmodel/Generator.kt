package textmodel

/** Writes texts, token by token, each the most probable one. */
class TextGenerator(private val info: ModelInfo, private val tokenizer: Tokenizer, private val decoder: Decoder) {
    /**
     * The text that follows a prompt, of at most [maxNewTokens] tokens.
     *
     * [onPiece] gets each piece of it as it becomes certain; where it returns false, the text ends.
     */
    fun generate(prompt: String, maxNewTokens: Int = 64, onPiece: (String) -> Boolean = { true }): String {
        val ids = (info.prompt.before + tokenizer.pieces(prompt).ids + info.prompt.after).toList()
        val stream = TextStream(tokenizer, ids)
        val text = StringBuilder()
        var told = 0
        for (token in tokens(ids, maxNewTokens)) {
            text.append(stream.feed(token))
            val stop = info.stopStrings.map { text.indexOf(it) }.filter { it >= 0 }.minOrNull()
            if (stop != null) text.setLength(stop)
            val certain = if (stop == null) maxOf(told, text.length - held(text)) else text.length
            if (certain > told && !onPiece(text.substring(told, certain))) return text.toString()
            told = maxOf(told, certain)
            if (stop != null) return text.toString()
        }
        text.append(stream.end())
        if (text.length > told) onPiece(text.substring(told))
        return text.toString()
    }

    /** The ids of the tokens that follow those of a prompt, as they come; the end token is not among them. */
    fun tokens(prompt: List<Int>, maxNewTokens: Int): Sequence<Int> = sequence {
        require(prompt.isNotEmpty()) { "The prompt is empty: give a text of one token at least." }
        require(prompt.size <= info.cacheLength) { "${prompt.size} tokens do not fit in ${info.cacheLength} slots." }
        decoder.reset()
        var position = 0
        val read = prompt.dropLast(1)
        for (chunk in chunks(read.size, info.prefillLengths.toList(), info.cacheLength, info.wholeChunks)) {
            val tokens = IntArray(chunk.length) { if (it < chunk.count) read[position + it] else 0 }
            val signature = if (chunk.length == 1) "decode" else "prefill_${chunk.length}"
            decoder.run(signature, tokens, IntArray(chunk.length) { position + it })
            position += chunk.count
        }
        var token = prompt.last()
        // The last token is chosen but need not be written: one more than there are free slots.
        repeat(minOf(maxNewTokens, info.cacheLength - prompt.size + 1)) {
            val slots = info.decodeSlots.firstOrNull { position < it }
            val signature = if (slots == null) "decode" else "decode_$slots"
            token = largest(decoder.run(signature, intArrayOf(token), intArrayOf(position++))!!)
            if (token in info.stopIds) return@sequence
            yield(token)
        }
    }

    /** Characters at the end of a text with which a stop string may begin. */
    private fun held(text: CharSequence) = info.stopStrings.maxOfOrNull { stop ->
        (minOf(text.length, stop.length - 1) downTo 1).firstOrNull { text.endsWith(stop.take(it)) } ?: 0
    } ?: 0
}

/** A call that fills the cache with [count] tokens by the signature for [length] of them; 1 is `decode`. */
class Chunk(val length: Int, val count: Int)

/** The calls that write [count] tokens; none goes past the end of the cache. With [whole], none is padded. */
fun chunks(count: Int, lengths: List<Int>, cacheLength: Int, whole: Boolean): List<Chunk> {
    val found = mutableListOf<Chunk>()
    var position = 0
    while (position < count) {
        val left = count - position
        val fitting = lengths.filter { position + it <= cacheLength }.sorted()
        val padded = fitting.firstOrNull { !whole && left < it && it <= maxOf(2 * left, lengths.min()) }
        val length = padded ?: fitting.lastOrNull { it <= left } ?: 1
        found.add(Chunk(length, minOf(length, left)))
        position += minOf(length, left)
    }
    return found
}

/** Text out of ids as they come, without ever showing half a character. */
class TextStream(private val tokenizer: Tokenizer, prompt: List<Int>) {
    private var ids = listOf<Int>()
    private var context = 0 // ids whose text is out; they stay for the spaces of what follows
    private var shown = 0

    init {
        feed(prompt)
    }

    fun feed(token: Int) = feed(listOf(token))

    private fun feed(more: List<Int>): String {
        ids = ids + more
        val text = decoded(ids)
        if (text.endsWith(INCOMPLETE)) return show(text.trimEnd(INCOMPLETE))
        val piece = show(text)
        if (piece.isNotEmpty()) {
            ids = ids.drop(context)
            context = ids.size
            shown = decoded(ids).length
        }
        return piece
    }

    /** The rest, an unfinished character among it. */
    fun end() = show(decoded(ids))

    private fun show(text: String): String {
        val piece = if (text.length > shown) text.substring(shown) else ""
        shown = maxOf(shown, text.length)
        return piece
    }

    private fun decoded(ids: List<Int>) = tokenizer.decode(ids.toIntArray())

    private companion object {
        const val INCOMPLETE = '\ufffd'
    }
}
