import Answers
import Foundation

/// The model in model.tflite that finds answers.
public final class TextModel {
    public let info: ModelInfo
    let tokenizer: TextTokenizer
    let runner: LiteRTModel
    private let answering: QuestionAnswering

    /// Opens the files of the package.
    public init() async throws {
        guard let folder = Bundle.module.url(forResource: "Model", withExtension: nil) else {
            throw ModelError("The package has no folder Model.")
        }
        info = try ModelInfo(Data(contentsOf: folder.appendingPathComponent("model.json")))
        tokenizer = try await HuggingFaceTokens(folder, placed: true)
        runner = try LiteRTModel(folder.appendingPathComponent("model.tflite"))
        answering = QuestionAnswering(info, tokenizer, runner)
    }

    /// The best answers to a question in a context, best first.
    public func answers(_ question: String, _ context: String, count: Int = 1) throws -> [Answer] {
        try answering.answers(question, context, count: count)
    }

    /// What the example in README.md shows: the first line is the question, the others are the context.
    public func answer(_ text: String) throws -> String {
        let lines = text.split(separator: "\n", maxSplits: 1).map(String.init)
        guard lines.count == 2 else { return "no answer" }
        return try answers(lines[0], lines[1]).first?.text ?? "no answer"
    }
}
