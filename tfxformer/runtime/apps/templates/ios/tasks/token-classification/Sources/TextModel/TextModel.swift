import Answers
import Foundation

/// The tagger in model.tflite.
public final class TextModel {
    public let info: ModelInfo
    let tokenizer: TextTokenizer
    let runner: LiteRTModel
    private let tagger: TokenClassifier

    /// Opens the files of the package.
    public init() async throws {
        guard let folder = Bundle.module.url(forResource: "Model", withExtension: nil) else {
            throw ModelError("The package has no folder Model.")
        }
        info = try ModelInfo(Data(contentsOf: folder.appendingPathComponent("model.json")))
        tokenizer = try await HuggingFaceTokens(folder, placed: false)
        runner = try LiteRTModel(folder.appendingPathComponent("model.tflite"))
        tagger = TokenClassifier(info, tokenizer, runner)
    }

    /// The label of each word.
    public func tag(_ words: [String]) throws -> [String?] { try tagger.tag(words) }

    /// The entities of a text.
    public func entities(_ text: String) throws -> [Entity] { try tagger.entities(text) }

    /// What the example in README.md shows.
    public func answer(_ text: String) throws -> String {
        try entities(text).map { "\($0.label) \($0.text) \($0.score)" }.joined(separator: "\n")
    }
}
