package textmodel

import kotlin.math.exp

/** A piece of a context: `context.substring(start, end)`; [score] is the sum of its logits. */
data class Answer(val text: String, val start: Int, val end: Int, val score: Float, val probability: Float)

/** Finds answers in contexts. */
class QuestionAnswering(private val info: ModelInfo, private val tokenizer: Tokenizer, private val model: Model) {
    /** The best answer; null where the context has no token. */
    fun answer(question: String, context: String): Answer? = answers(question, context, 1).firstOrNull()

    /** The best answers of at most [longest] tokens, best first; their probabilities are shares among themselves. */
    fun answers(question: String, context: String, count: Int, longest: Int = 30): List<Answer> {
        val asked = tokenizer.pieces(question).ids
        val pieces = tokenizer.pieces(context)
        val length = info.signatures.last().length
        val scores = mutableMapOf<Pair<Int, Int>, Float>()
        for (window in windows(pieces.ids.size, length - info.pair.count - asked.size, minOf(length / 4, 128))) {
            val row = info.pairRow(asked, pieces.ids.copyOfRange(window.start, window.end))
            val logits = model.run(info, row)
            val offset = info.pair.before.size + asked.size + info.pair.between.size - window.start
            for (first in window.start until window.end) {
                for (last in first until minOf(first + longest, window.end)) {
                    val span = Pair(pieces.starts[first], pieces.ends[last])
                    val score = logits[2 * (first + offset)] + logits[2 * (last + offset) + 1]
                    if (span.first < span.second && score > (scores[span] ?: Float.NEGATIVE_INFINITY)) {
                        scores[span] = score
                    }
                }
            }
        }
        return best(scores, count, context)
    }

    private fun best(scores: Map<Pair<Int, Int>, Float>, count: Int, context: String): List<Answer> {
        val order = compareBy<Map.Entry<Pair<Int, Int>, Float>>({ -it.value }, { it.key.first }, { it.key.second })
        val best = scores.entries.sortedWith(order).take(count)
        val shares = best.map { exp((it.value - best[0].value).toDouble()) }
        return best.mapIndexed { index, (span, score) ->
            val start = context.place(span.first)
            val end = context.place(span.second)
            Answer(context.substring(start, end), start, end, score, (shares[index] / shares.sum()).toFloat())
        }
    }
}
