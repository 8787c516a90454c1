import Answers
import Foundation

/// The language model in model.tflite.
public final class TextModel {
    public let info: ModelInfo
    let tokenizer: TextTokenizer
    let runner: LiteRTDecoder
    private let generator: TextGenerator

    /// Opens the files of the package.
    public init() async throws {
        guard let folder = Bundle.module.url(forResource: "Model", withExtension: nil) else {
            throw ModelError("The package has no folder Model.")
        }
        info = try ModelInfo(Data(contentsOf: folder.appendingPathComponent("model.json")))
        tokenizer = try await HuggingFaceTokens(folder, placed: false)
        runner = try LiteRTDecoder(folder.appendingPathComponent("model.tflite"), info)
        generator = TextGenerator(info, tokenizer, runner)
    }

    /// The text that follows a prompt; `onPiece` gets its pieces as they come, and ends it by false.
    public func generate(
        _ prompt: String, maxNewTokens: Int = 64, onPiece: (String) -> Bool = { _ in true }
    ) throws -> String {
        try generator.generate(prompt, maxNewTokens: maxNewTokens, onPiece: onPiece)
    }

    /// What the example in README.md shows.
    public func answer(_ text: String) throws -> String { text + (try generate(text)) }
}
