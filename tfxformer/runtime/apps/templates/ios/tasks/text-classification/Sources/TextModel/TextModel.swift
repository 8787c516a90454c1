import Answers
import Foundation

/// The classifier in model.tflite.
public final class TextModel {
    public let info: ModelInfo
    let tokenizer: TextTokenizer
    let runner: LiteRTModel
    private let classifier: TextClassifier

    /// Opens the files of the package.
    public init() async throws {
        guard let folder = Bundle.module.url(forResource: "Model", withExtension: nil) else {
            throw ModelError("The package has no folder Model.")
        }
        info = try ModelInfo(Data(contentsOf: folder.appendingPathComponent("model.json")))
        tokenizer = try await HuggingFaceTokens(folder, placed: false)
        runner = try LiteRTModel(folder.appendingPathComponent("model.tflite"))
        classifier = TextClassifier(info, tokenizer, runner)
    }

    /// Every label of a text (or a pair of texts) with its probability, the likeliest first.
    public func classify(_ text: String, pair: String? = nil) throws -> [Category] {
        try classifier.classify(text, pair: pair)
    }

    /// What the example in README.md shows.
    public func answer(_ text: String) throws -> String {
        try classify(text).map { "\($0.label) \($0.score)" }.joined(separator: "\n")
    }
}
