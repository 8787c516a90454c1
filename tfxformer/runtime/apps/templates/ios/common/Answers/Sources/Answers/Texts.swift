/// A label and its probability; of a regression, a score.
public struct Category: Equatable {
    public let label: String
    public let score: Float
}

/// Classifies texts, or pairs of texts.
public struct TextClassifier {
    let info: ModelInfo, tokenizer: TextTokenizer, model: Model

    public init(_ info: ModelInfo, _ tokenizer: TextTokenizer, _ model: Model) {
        (self.info, self.tokenizer, self.model) = (info, tokenizer, model)
    }

    /// Every label with its probability, the likeliest first.
    public func classify(_ text: String, pair: String? = nil) throws -> [Category] {
        let scores = try scores(text, pair: pair)
        let labels = info.labels ?? scores.indices.map(String.init)
        return zip(labels, scores).map { Category(label: $0, score: $1) }.sorted { $0.score > $1.score }
    }

    /// The probabilities in the order of the file's labels.
    public func scores(_ text: String, pair: String? = nil) throws -> [Float] {
        let first = try tokenizer.pieces(text).ids
        let row = try pair.map { info.row(first, try tokenizer.pieces($0).ids) } ?? info.row(first)
        return try model.run(info, row)
    }
}

/// Makes vectors of texts; compare them by `cosineSimilarity`.
public struct TextEmbedder {
    let info: ModelInfo, tokenizer: TextTokenizer, model: Model

    public init(_ info: ModelInfo, _ tokenizer: TextTokenizer, _ model: Model) {
        (self.info, self.tokenizer, self.model) = (info, tokenizer, model)
    }

    /// The vector of a text; `promptName` is one of the names in model.json.
    public func embed(_ text: String, promptName: String? = nil) throws -> [Float] {
        guard let prompt = promptName == nil ? info.defaultPrompt! : info.prompts![promptName!] else {
            throw ModelError("There is no prompt \(promptName!).")
        }
        let row = info.row(try tokenizer.pieces(prompt + text).ids)
        return try model.run(info, row, hidden: info.pooledMask == nil ? 0 : hidden(prompt))
    }

    /// The tokens of a prompt, but for a special one at its end.
    private func hidden(_ prompt: String) throws -> Int {
        if prompt.isEmpty { return 0 }
        let count = info.single!.count + (try tokenizer.pieces(prompt).ids.count)
        return info.single!.after.isEmpty ? count : count - 1
    }
}
