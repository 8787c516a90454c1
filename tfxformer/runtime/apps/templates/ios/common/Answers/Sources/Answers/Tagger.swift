let outside = "O"
private let prefixes: Set<String> = ["B-", "I-", "E-", "S-", "L-", "U-"]

/// A piece of a text.
public struct Entity: Equatable {
    public let text: String
    public let label: String
    public let score: Float
    public let range: Range<String.Index>
}

/// Labels words, and finds the entities that they make.
public struct TokenClassifier {
    let info: ModelInfo, tokenizer: TextTokenizer, model: Model

    public init(_ info: ModelInfo, _ tokenizer: TextTokenizer, _ model: Model) {
        (self.info, self.tokenizer, self.model) = (info, tokenizer, model)
    }

    /// The label of each word; nil for a word without a token, where the file has no label "O".
    public func tag(_ words: [String]) throws -> [String?] {
        try probabilities(words).map(label)
    }

    /// The entities of a text.
    public func entities(_ text: String) throws -> [Entity] {
        let words = words(text)
        let scores = try probabilities(words.map(\.text))
        return entitySpans(scores.map { label($0) ?? outside }).map { span in
            let range = text.place(words[span.first].start)..<text.place(words[span.last].end)
            let known = scores[span.first...span.last].compactMap { $0?.max() }
            let score = known.reduce(0, +) / Float(known.count)
            return Entity(text: String(text[range]), label: span.label, score: score, range: range)
        }
    }

    private func label(_ scores: [Float]?) -> String? {
        guard let scores else { return info.labels!.contains(outside) ? outside : nil }
        return info.labels![largest(scores)]
    }

    /// The probabilities of the first token of each word, each from the window with most of its context.
    private func probabilities(_ words: [String]) throws -> [[Float]?] {
        let pieces = try words.map { try tokenizer.pieces(info.wordPrefix! + $0).ids }
        let ids = pieces.flatMap { $0 }
        var firsts = [Int](), count = 0
        for one in pieces {
            firsts.append(count)
            count += one.count
        }
        var found = [[Float]?](repeating: nil, count: words.count)
        var rooms = [Int](repeating: -1, count: words.count)
        let longest = info.signatures!.last!.length, around = info.single!
        for window in try windows(ids.count, size: longest - around.count, overlap: min(longest / 4, 128)) {
            let whole = around.before + Array(ids[window.start..<window.end]) + around.after
            let row = Row(ids: whole, segments: [Int32](repeating: 0, count: whole.count))
            let logits = try model.run(info, row)
            let columns = logits.count / (try info.signature(row).length)
            for word in words.indices where !pieces[word].isEmpty {
                let piece = firsts[word]
                guard window.start <= piece, piece < window.end, window.room(piece) > rooms[word] else { continue }
                let place = (around.before.count + piece - window.start) * columns
                found[word] = softmax(Array(logits[place..<place + columns]))
                rooms[word] = window.room(piece)
            }
        }
        return found
    }
}

/// A run of words that is an entity: `last` is the last of them.
public struct EntitySpan: Equatable {
    public let label: String
    public let first: Int
    public let last: Int
}

/// The entities of tags: BIO, IOB, IOBES or BILOU; of labels without such prefixes, each run of equal ones.
public func entitySpans(_ labels: [String]) -> [EntitySpan] {
    let prefixed = labels.allSatisfy { $0 == outside || prefixes.contains(String($0.prefix(2))) }
    var found = [EntitySpan](), start = 0, before = outside
    for (index, tag) in ((prefixed ? labels : plain(labels)) + [outside]).enumerated() {
        let goesOn = before != outside && !"ESLU".contains(before.first!) && !"BSUO".contains(tag.first!)
            && tag.dropFirst(2) == before.dropFirst(2)
        if before != outside && !goesOn {
            let label = String(before.dropFirst(2))
            found.append(EntitySpan(label: label.isEmpty ? "_" : label, first: start, last: index - 1))
        }
        if !goesOn { start = index }
        before = tag
    }
    return found
}

private func plain(_ labels: [String]) -> [String] {
    labels.enumerated().map { index, label in
        let goesOn = index > 0 && labels[index - 1] == label
        return label == outside ? label : (goesOn ? "I-" : "B-") + label
    }
}
