import Foundation

/// Probabilities of logits.
public func softmax(_ logits: [Float]) -> [Float] {
    guard let most = logits.max() else { return [] }
    let shares = logits.map { exp($0 - most) }
    let sum = shares.reduce(0, +)
    return shares.map { $0 / sum }
}

/// Where the largest number stands, the first of equal ones.
public func largest(_ values: [Float]) -> Int {
    var best = 0
    for index in values.indices where values[index] > values[best] { best = index }
    return best
}

/// The cosine of the angle between two vectors: 1 where they point the same way.
public func cosineSimilarity(_ first: [Float], _ second: [Float]) -> Float {
    precondition(first.count == second.count, "vectors of different lengths")
    var product = 0.0, firstSquares = 0.0, secondSquares = 0.0
    for (one, other) in zip(first, second) {
        product += Double(one) * Double(other)
        firstSquares += Double(one) * Double(one)
        secondSquares += Double(other) * Double(other)
    }
    return Float(product / (firstSquares * secondSquares).squareRoot())
}
