package textmodel

import kotlin.math.max

/** The tokens of one call: ids, and the segment of each. */
class Row(val ids: IntArray, val segments: IntArray)

/** A text with its special tokens, cut to the length of the file. */
fun ModelInfo.row(ids: IntArray): Row {
    val kept = cut(ids, maxLength - single.count)
    val whole = single.before + kept + single.after
    return Row(whole, IntArray(whole.size))
}

/** A pair of texts with their special tokens; the longer one is cut first. */
fun ModelInfo.row(first: IntArray, second: IntArray): Row {
    val (firstLength, secondLength) = pairLengths(first.size, second.size, maxLength - pair.count)
    return pairRow(cut(first, firstLength), cut(second, secondLength))
}

/** A pair of texts with their special tokens. */
fun ModelInfo.pairRow(first: IntArray, second: IntArray): Row {
    val head = pair.before + first + pair.between
    val tail = second + pair.after
    return Row(head + tail, IntArray(head.size) + IntArray(tail.size) { secondSegment })
}

private fun ModelInfo.cut(ids: IntArray, length: Int) = when {
    ids.size <= length -> ids
    cutsOnTheLeft -> ids.copyOfRange(ids.size - length, ids.size)
    else -> ids.copyOf(length)
}

/** The lengths that a pair keeps of a total, as Hugging Face tokenizers cut "longest first". */
internal fun pairLengths(first: Int, second: Int, total: Int): Pair<Int, Int> {
    if (first + second <= total) return Pair(first, second)
    var short = minOf(first, second)
    var long = if (short > total) short else max(short, total - short)
    if (short + long > total) {
        short = total / 2
        long = short + total % 2
    }
    return if (first > second) Pair(long, short) else Pair(short, long)
}

/**
 * Runs a row by the shortest signature that holds it.
 *
 * [hidden] tokens at its beginning are left out of a pooled vector.
 */
fun Model.run(info: ModelInfo, row: Row, hidden: Int = 0): FloatArray {
    val signature = info.signatures.firstOrNull { row.ids.size <= it.length }
        ?: error("A row of ${row.ids.size} tokens is longer than the file reads.")
    val inputs = mutableMapOf(
        "token_ids" to IntArray(signature.length) { if (it < row.ids.size) row.ids[it] else info.paddingId },
        "padding_mask" to IntArray(signature.length) { if (it < row.ids.size) 1 else 0 },
    )
    if ("segment_ids" in info.inputs) inputs["segment_ids"] = row.segments.copyOf(signature.length)
    info.pooledMask?.let { name ->
        inputs[name] = IntArray(signature.length) { if (it in hidden until row.ids.size) 1 else 0 }
    }
    return run(signature.name, inputs).getValue(info.output)
}

/** How many numbers of an output belong to one token. */
internal fun ModelInfo.columns(output: FloatArray, row: Row): Int {
    val length = signatures.first { row.ids.size <= it.length }.length
    return output.size / length
}

/** Where in a text, as Kotlin counts, a character (code point) stands. */
internal fun String.place(character: Int) = offsetByCodePoints(0, character)
