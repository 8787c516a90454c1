import Answers
import Foundation
import Tokenizers

/// tokenizer.json, read by Hugging Face's swift-transformers.
public struct HuggingFaceTokens: TextTokenizer {
    private let tokenizer: Tokenizer
    private let placed: Bool

    /// With `placed`, texts are read word by word, to know where their tokens are.
    public init(_ folder: URL, placed: Bool) async throws {
        tokenizer = try await AutoTokenizer.from(modelFolder: folder)
        self.placed = placed
    }

    public func pieces(_ text: String) -> Pieces {
        guard placed else {
            let ids = tokenizer.encode(text: text, addSpecialTokens: false).map(Int32.init)
            let nowhere = [Int](repeating: 0, count: ids.count)
            return Pieces(ids: ids, starts: nowhere, ends: nowhere)
        }
        var ids = [Int32](), starts = [Int](), ends = [Int]()
        for word in words(text) {
            let found = tokenizer.encode(text: word.text, addSpecialTokens: false).map(Int32.init)
            ids += found
            starts += found.map { _ in word.start }
            ends += found.map { _ in word.end }
        }
        return Pieces(ids: ids, starts: starts, ends: ends)
    }

    public func decode(_ ids: [Int32]) -> String {
        tokenizer.decode(tokens: ids.map(Int.init), skipSpecialTokens: true)
    }
}
