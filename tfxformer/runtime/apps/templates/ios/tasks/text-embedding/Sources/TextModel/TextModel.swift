import Answers
import Foundation

/// The embedder in model.tflite.
public final class TextModel {
    public let info: ModelInfo
    let tokenizer: TextTokenizer
    let runner: LiteRTModel
    private let embedder: TextEmbedder

    /// Opens the files of the package.
    public init() async throws {
        guard let folder = Bundle.module.url(forResource: "Model", withExtension: nil) else {
            throw ModelError("The package has no folder Model.")
        }
        info = try ModelInfo(Data(contentsOf: folder.appendingPathComponent("model.json")))
        tokenizer = try await HuggingFaceTokens(folder, placed: false)
        runner = try LiteRTModel(folder.appendingPathComponent("model.tflite"))
        embedder = TextEmbedder(info, tokenizer, runner)
    }

    /// The vector of a text; of two of them `cosineSimilarity` says how alike the texts are.
    public func embed(_ text: String, promptName: String? = nil) throws -> [Float] {
        try embedder.embed(text, promptName: promptName)
    }

    /// What the example in README.md shows: how alike each line is to the first.
    public func answer(_ text: String) throws -> String {
        let lines = text.split(separator: "\n").map(String.init)
        guard let first = lines.first else { return "" }
        let query = try embed(first)
        let found = try lines.dropFirst().map { ($0, cosineSimilarity(query, try embed($0))) }
        return found.sorted { $0.1 > $1.1 }.map { "\($0.1) \($0.0)" }.joined(separator: "\n")
    }
}
