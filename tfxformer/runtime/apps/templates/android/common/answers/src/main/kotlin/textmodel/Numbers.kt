package textmodel

import kotlin.math.exp
import kotlin.math.sqrt

/** Probabilities of logits. */
fun softmax(logits: FloatArray): FloatArray {
    val most = logits.maxOrNull() ?: return FloatArray(0)
    val shares = FloatArray(logits.size) { exp(logits[it] - most) }
    val sum = shares.sum()
    return FloatArray(shares.size) { shares[it] / sum }
}

/** Where the largest number stands, the first of equal ones. */
fun largest(values: FloatArray): Int {
    var best = 0
    for (index in values.indices) if (values[index] > values[best]) best = index
    return best
}

/** The cosine of the angle between two vectors: 1 where they point the same way. */
fun cosineSimilarity(first: FloatArray, second: FloatArray): Float {
    require(first.size == second.size) { "Vectors of ${first.size} and ${second.size} numbers." }
    var product = 0.0
    var firstSquares = 0.0
    var secondSquares = 0.0
    for (index in first.indices) {
        product += first[index].toDouble() * second[index]
        firstSquares += first[index].toDouble() * first[index]
        secondSquares += second[index].toDouble() * second[index]
    }
    return (product / sqrt(firstSquares * secondSquares)).toFloat()
}
