import Foundation

/// A piece of a context; `score` is the sum of its logits.
public struct Answer: Equatable {
    public let text: String
    public let range: Range<String.Index>
    public let score: Float
    public let probability: Float
}

private struct Span: Hashable {
    let start: Int
    let end: Int
}

/// Finds answers in contexts.
public struct QuestionAnswering {
    let info: ModelInfo, tokenizer: TextTokenizer, model: Model

    public init(_ info: ModelInfo, _ tokenizer: TextTokenizer, _ model: Model) {
        (self.info, self.tokenizer, self.model) = (info, tokenizer, model)
    }

    /// The best answer; nil where the context has no token.
    public func answer(_ question: String, _ context: String) throws -> Answer? {
        try answers(question, context, count: 1).first
    }

    /// The best answers of at most `longest` tokens, best first; their probabilities are shares among themselves.
    public func answers(_ question: String, _ context: String, count: Int, longest: Int = 30) throws -> [Answer] {
        let asked = try tokenizer.pieces(question).ids
        let pieces = try tokenizer.pieces(context)
        let length = info.signatures!.last!.length, around = info.pair!
        let size = length - around.count - asked.count
        var scores = [Span: Float]()
        for window in try windows(pieces.ids.count, size: size, overlap: min(length / 4, 128)) {
            let row = info.pairRow(asked, Array(pieces.ids[window.start..<window.end]))
            let logits = try model.run(info, row)
            let offset = around.before.count + asked.count + around.between.count - window.start
            for first in window.start..<window.end {
                for last in first..<min(first + longest, window.end) {
                    let span = Span(start: pieces.starts[first], end: pieces.ends[last])
                    let score = logits[2 * (first + offset)] + logits[2 * (last + offset) + 1]
                    if span.start < span.end, score > scores[span] ?? -.infinity { scores[span] = score }
                }
            }
        }
        return best(scores, count, context)
    }

    private func best(_ scores: [Span: Float], _ count: Int, _ context: String) -> [Answer] {
        let order = scores.sorted {
            ($1.value, $0.key.start, $0.key.end) < ($0.value, $1.key.start, $1.key.end)
        }.prefix(count)
        let shares = order.map { exp(Double($0.value - order[0].value)) }
        let sum = shares.reduce(0, +)
        return zip(order, shares).map { found, share in
            let range = context.place(found.key.start)..<context.place(found.key.end)
            let text = String(context[range])
            return Answer(text: text, range: range, score: found.value, probability: Float(share / sum))
        }
    }
}
