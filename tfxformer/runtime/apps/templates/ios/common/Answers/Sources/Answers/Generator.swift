import Foundation

/// Writes texts, token by token, each the most probable one.
public struct TextGenerator {
    let info: ModelInfo, tokenizer: TextTokenizer, decoder: Decoder

    public init(_ info: ModelInfo, _ tokenizer: TextTokenizer, _ decoder: Decoder) {
        (self.info, self.tokenizer, self.decoder) = (info, tokenizer, decoder)
    }

    /// The ids of a prompt, special tokens included.
    public func ids(_ prompt: String) throws -> [Int32] {
        info.prompt!.before + (try tokenizer.pieces(prompt).ids) + info.prompt!.after
    }

    /// The text that follows a prompt, of at most `maxNewTokens` tokens.
    ///
    /// `onPiece` gets each piece of it as it becomes certain; where it returns false, the text ends.
    public func generate(
        _ prompt: String, maxNewTokens: Int = 64, onPiece: (String) -> Bool = { _ in true }
    ) throws -> String {
        let ids = try ids(prompt)
        let stream = try TextStream(tokenizer, ids)
        // Scalars, not characters: two pieces may join into one character.
        var text = [Unicode.Scalar](), told = 0, goesOn = true
        func tell(_ end: Int) {
            if end > told { goesOn = onPiece(joined(text[told..<end])) }
            told = max(told, end)
        }
        try tokens(ids, maxNewTokens: maxNewTokens) { token in
            text += Array(try stream.feed(token).unicodeScalars)
            if let stop = info.stopStrings!.compactMap({ find(Array($0.unicodeScalars), in: text) }).min() {
                text.removeLast(text.count - stop)
                tell(stop)
                goesOn = false
            } else {
                tell(text.count - held(text))
            }
            return goesOn
        }
        if goesOn {
            text += Array(try stream.end().unicodeScalars)
            tell(text.count)
        }
        return joined(text[...])
    }

    /// Gives the ids of the tokens that follow those of a prompt, but the end token, until `onToken` returns false.
    public func tokens(_ prompt: [Int32], maxNewTokens: Int, onToken: (Int32) throws -> Bool) throws {
        guard let last = prompt.last else { throw ModelError("The prompt is empty: give a text of one token at least.") }
        guard prompt.count <= info.cacheLength! else {
            throw ModelError("\(prompt.count) tokens do not fit in \(info.cacheLength!) slots.")
        }
        try decoder.reset()
        var position = 0
        let calls = chunks(
            prompt.count - 1, lengths: info.prefillLengths!, cacheLength: info.cacheLength!, whole: info.wholeChunks!)
        for chunk in calls {
            let tokens = (0..<chunk.length).map { $0 < chunk.count ? prompt[position + $0] : 0 }
            let signature = chunk.length == 1 ? "decode" : "prefill_\(chunk.length)"
            let positions = (0..<chunk.length).map { Int32(position + $0) }
            _ = try decoder.run(signature, tokens: tokens, positions: positions)
            position += chunk.count
        }
        var token = last
        // The last token is chosen but need not be written: one more than there are free slots.
        for _ in 0..<min(maxNewTokens, info.cacheLength! - prompt.count + 1) {
            let slots = info.decodeSlots!.first { position < $0 }
            let signature = slots.map { "decode_\($0)" } ?? "decode"
            guard let logits = try decoder.run(signature, tokens: [token], positions: [Int32(position)]) else {
                throw ModelError("\(signature) gives no logits.")
            }
            position += 1
            token = Int32(largest(logits))
            if info.stopIds!.contains(token) { return }
            if try !onToken(token) { return }
        }
    }

    /// Scalars at the end of a text with which a stop string may begin.
    private func held(_ text: [Unicode.Scalar]) -> Int {
        info.stopStrings!.map { stop in
            let scalars = Array(stop.unicodeScalars)
            let most = min(text.count, scalars.count - 1)
            return stride(from: most, to: 0, by: -1).first { text.suffix($0).elementsEqual(scalars.prefix($0)) } ?? 0
        }.max() ?? 0
    }
}

private func joined(_ scalars: ArraySlice<Unicode.Scalar>) -> String {
    var view = String.UnicodeScalarView()
    view.append(contentsOf: scalars)
    return String(view)
}

private func find(_ part: [Unicode.Scalar], in text: [Unicode.Scalar]) -> Int? {
    guard part.count <= text.count else { return nil }
    return (0...text.count - part.count).first { text[$0..<$0 + part.count].elementsEqual(part) }
}

/// A call that fills the cache with `count` tokens by the signature for `length` of them; 1 is `decode`.
public struct Chunk {
    public let length: Int
    public let count: Int
}

/// The calls that write `count` tokens; none goes past the end of the cache. With `whole`, none is padded.
public func chunks(_ count: Int, lengths: [Int], cacheLength: Int, whole: Bool) -> [Chunk] {
    var found = [Chunk](), position = 0
    while position < count {
        let left = count - position
        let fitting = lengths.filter { position + $0 <= cacheLength }.sorted()
        let padded = fitting.first { !whole && left < $0 && $0 <= max(2 * left, lengths.min()!) }
        let length = padded ?? fitting.last { $0 <= left } ?? 1
        found.append(Chunk(length: length, count: min(length, left)))
        position += min(length, left)
    }
    return found
}

/// Text out of ids as they come, without ever showing half a character.
public final class TextStream {
    private let tokenizer: TextTokenizer
    private var ids = [Int32]()
    private var context = 0  // ids whose text is out; they stay for the spaces of what follows
    private var shown = 0

    public init(_ tokenizer: TextTokenizer, _ prompt: [Int32]) throws {
        self.tokenizer = tokenizer
        _ = try feed(prompt)
    }

    public func feed(_ token: Int32) throws -> String { try feed([token]) }

    private func feed(_ more: [Int32]) throws -> String {
        ids += more
        var text = try decoded(ids)
        if text.last == TextStream.incomplete {
            while text.last == TextStream.incomplete { text.removeLast() }
            return show(text)
        }
        let piece = show(text)
        if !piece.isEmpty {
            ids = Array(ids.dropFirst(context))
            context = ids.count
            shown = try decoded(ids).count
        }
        return piece
    }

    /// The rest, an unfinished character among it.
    public func end() throws -> String { show(try decoded(ids)) }

    private func show(_ text: [Unicode.Scalar]) -> String {
        let piece = text.count > shown ? joined(text[shown...]) : ""
        shown = max(shown, text.count)
        return piece
    }

    private func decoded(_ ids: [Int32]) throws -> [Unicode.Scalar] { Array(try tokenizer.decode(ids).unicodeScalars) }

    private static let incomplete: Unicode.Scalar = "\u{fffd}"
}
