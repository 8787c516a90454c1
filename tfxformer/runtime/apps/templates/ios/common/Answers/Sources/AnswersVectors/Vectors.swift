import Answers
import Foundation

/// vectors.json: what Python answers, and each step on the way.
public struct Vectors: Decodable {
    struct Read: Decodable {
        let ids: [Int32], starts: [Int], ends: [Int]
    }

    struct Run: Decodable {
        let signature: String, inputs: [String: [Int32]], outputs: [String: [Float]]
    }

    struct Logits: Decodable {
        let ids: [Int], values: [Float]
    }

    struct Step: Decodable {
        let signature: String, tokens: [Int32], positions: [Int32], logits: Logits?
    }

    struct Text: Decodable {
        let ids: [Int32], text: String
    }

    struct Spot: Decodable, Equatable {
        let text: String, start: Int, end: Int, label: String?, score: Float, probability: Float?
    }

    public struct Wanted: Decodable {
        let text: String?, pair: String?, prompt: String?, values: [Float]?, similarity_to_the_one_before: Float?
        let words: [String]?, labels: [String?]?, entities: [Spot]?
        let question: String?, context: String?, answers: [Spot]?
        let max_new_tokens: Int?, tokens: [Int32]?, steps: [Step]?
    }

    let pieces: [String: Read], runs: [Run]?, decoded: [Text]?
    public let answers: [Wanted]

    public init(_ json: Data) throws {
        self = try JSONDecoder().decode(Vectors.self, from: json)
    }

    /// A tokenizer that knows the texts of the vectors.
    public var tokenizer: TextTokenizer { PlayedTokenizer(vectors: self) }

    /// A file that plays its calls back: inputs that Python did not make are an error.
    public var model: Model { PlayedModel(runs: runs ?? []) }

    /// The texts that another tokenizer gives other ids.
    public func otherIds(_ tokenizer: TextTokenizer) throws -> [String] {
        try pieces.filter { text, wanted in try tokenizer.pieces(text).ids != wanted.ids }.map(\.key)
    }

    /// What differs from Python with all calls played back.
    public func differences(_ info: ModelInfo) throws -> [String] {
        if info.task != "text-generation" { return try differences(info, tokenizer, model, tolerance: 1e-5) }
        return try differences(info, tokenizer) { PlayedDecoder(steps: $0.steps!, size: info.vocabularySize!) }
    }

    /// What differs from Python of a language model, with the decoder of each answer.
    public func differences(
        _ info: ModelInfo, _ tokenizer: TextTokenizer, decoder: (Wanted) -> Decoder
    ) throws -> [String] {
        try answers.flatMap { try written(TextGenerator(info, tokenizer, decoder($0)), $0) }
    }

    /// What differs from Python, a line each, at most `tolerance` apart in probabilities and vectors.
    public func differences(
        _ info: ModelInfo, _ tokenizer: TextTokenizer, _ model: Model, tolerance: Float
    ) throws -> [String] {
        var before: [Float]?
        return try answers.flatMap { wanted -> [String] in
            switch info.task {
            case "text-classification":
                let found = try TextClassifier(info, tokenizer, model).scores(wanted.text!, pair: wanted.pair)
                return far(wanted.text!, found, wanted.values!, tolerance)
            case "text-embedding":
                let found = try TextEmbedder(info, tokenizer, model).embed(wanted.text!, promptName: wanted.prompt)
                defer { before = found }
                var similar = [String]()
                if let last = before, let cosine = wanted.similarity_to_the_one_before {
                    similar = far("similarity", [cosineSimilarity(last, found)], [cosine], tolerance)
                }
                return far(wanted.text!, found, wanted.values!, tolerance) + similar
            case "token-classification":
                return try tagged(TokenClassifier(info, tokenizer, model), wanted, tolerance)
            default:
                return try answered(QuestionAnswering(info, tokenizer, model), wanted, tolerance)
            }
        }
    }

    private func tagged(_ tagger: TokenClassifier, _ wanted: Wanted, _ tolerance: Float) throws -> [String] {
        let text = wanted.text!
        let split = words(text).map(\.text)
        let found = try tagger.entities(text)
        let spots = found.map { [$0.label, $0.text] + places($0.range, text) }
        return other("words of \(text)", split, wanted.words!)
            + other("labels of \(text)", try tagger.tag(split), wanted.labels!)
            + other("entities of \(text)", spots, wanted.entities!.map { [$0.label!, $0.text, "\($0.start)", "\($0.end)"] })
            + far("entities of \(text)", found.map(\.score), wanted.entities!.map(\.score), tolerance)
    }

    private func answered(_ answering: QuestionAnswering, _ wanted: Wanted, _ tolerance: Float) throws -> [String] {
        let context = wanted.context!
        let found = try answering.answers(wanted.question!, context, count: wanted.answers!.count)
        let spots = found.map { [$0.text] + places($0.range, context) }
        return other("answers in \(context)", spots, wanted.answers!.map { [$0.text, "\($0.start)", "\($0.end)"] })
            + far("answers in \(context)", found.map(\.probability), wanted.answers!.map { $0.probability! }, tolerance)
    }

    private func written(_ generator: TextGenerator, _ wanted: Wanted) throws -> [String] {
        let prompt = wanted.prompt!
        var tokens = [Int32](), pieces = ""
        try generator.tokens(try generator.ids(prompt), maxNewTokens: wanted.max_new_tokens!) {
            tokens.append($0)
            return true
        }
        let text = try generator.generate(prompt, maxNewTokens: wanted.max_new_tokens!) {
            pieces += $0
            return true
        }
        return other("tokens after \(prompt)", tokens, wanted.tokens!) + other("text after \(prompt)", text, wanted.text!)
            + other("pieces", pieces, text)
    }

    private func places(_ range: Range<String.Index>, _ text: String) -> [String] {
        [range.lowerBound, range.upperBound].map {
            "\(text.unicodeScalars.distance(from: text.unicodeScalars.startIndex, to: $0))"
        }
    }

    private func other<T: Equatable>(_ what: String, _ found: T, _ wanted: T) -> [String] {
        found == wanted ? [] : ["\(what): \(found), in Python \(wanted)"]
    }

    private func far(_ what: String, _ found: [Float], _ wanted: [Float], _ tolerance: Float) -> [String] {
        if found.count != wanted.count { return ["\(what): \(found.count) numbers, in Python \(wanted.count)"] }
        let most = zip(found, wanted).map { abs($0 - $1) }.max() ?? 0
        return most <= tolerance ? [] : ["\(what): \(most) from Python's"]
    }
}

private struct PlayedTokenizer: TextTokenizer {
    let vectors: Vectors

    func pieces(_ text: String) throws -> Pieces {
        guard let found = vectors.pieces[text] else { throw ModelError("vectors.json has no ids of \(text).") }
        return Pieces(ids: found.ids, starts: found.starts, ends: found.ends)
    }

    func decode(_ ids: [Int32]) throws -> String {
        guard let found = vectors.decoded?.first(where: { $0.ids == ids }) else {
            throw ModelError("vectors.json has no text of these ids.")
        }
        return found.text
    }
}

private struct PlayedModel: Model {
    let runs: [Vectors.Run]

    func run(_ signature: String, _ inputs: [String: [Int32]]) throws -> [String: [Float]] {
        guard let found = runs.first(where: { $0.signature == signature && $0.inputs == inputs }) else {
            throw ModelError("Python ran no such inputs.")
        }
        return found.outputs
    }
}

private final class PlayedDecoder: Decoder {
    let steps: [Vectors.Step], size: Int
    var next = 0

    init(steps: [Vectors.Step], size: Int) {
        (self.steps, self.size) = (steps, size)
    }

    func reset() { next = 0 }

    func run(_ signature: String, tokens: [Int32], positions: [Int32]) throws -> [Float]? {
        let step = steps[next]
        next += 1
        guard step.signature == signature, step.tokens == tokens, step.positions == positions else {
            throw ModelError("\(signature) has read other tokens than Python's \(step.signature).")
        }
        guard let kept = step.logits else { return nil }
        var logits = [Float](repeating: -.infinity, count: size)
        for (index, value) in zip(kept.ids, kept.values) { logits[index] = value }
        return logits
    }
}
