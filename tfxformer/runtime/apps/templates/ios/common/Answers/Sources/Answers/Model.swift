import Foundation

/// The tokens of a text without special tokens; starts and ends count Unicode scalars of the text.
public struct Pieces {
    public let ids: [Int32]
    public let starts: [Int]
    public let ends: [Int]

    public init(ids: [Int32], starts: [Int], ends: [Int]) {
        self.ids = ids
        self.starts = starts
        self.ends = ends
    }
}

/// What reads tokenizer.json.
public protocol TextTokenizer {
    func pieces(_ text: String) throws -> Pieces
    /// The text of some ids, special tokens left out.
    func decode(_ ids: [Int32]) throws -> String
}

/// What runs a signature of the file. Arrays hold all numbers of a tensor, row after row.
public protocol Model {
    func run(_ signature: String, _ inputs: [String: [Int32]]) throws -> [String: [Float]]
}

/// What runs a decoder's signatures, and keeps its cache from call to call.
public protocol Decoder {
    /// Forgets the text so far.
    func reset() throws
    /// The logits of the next token; nil from a prefill.
    func run(_ signature: String, tokens: [Int32], positions: [Int32]) throws -> [Float]?
}

public struct ModelError: Error, CustomStringConvertible {
    public let description: String

    public init(_ description: String) {
        self.description = description
    }
}

/// Special tokens before a text, between two, and after.
public struct Around: Codable {
    public let before: [Int32]
    public let between: [Int32]
    public let after: [Int32]

    var count: Int { before.count + between.count + after.count }
}

/// A signature that reads `length` tokens.
public struct Signature: Codable {
    public let name: String
    public let length: Int
}

/// A tensor of a decoder's cache.
public struct CacheTensor: Codable {
    public let name: String
    public let bytes: Int
}

/// model.json: what the file is.
public struct ModelInfo: Codable {
    public let task: String
    let paddingId: Int32
    let truncationSide: String

    public let labels: [String]?
    public let problemType: String?
    let output: String?
    let signatures: [Signature]?
    let maxLength: Int?
    let inputs: [String]?
    let single: Around?
    let pair: Around?
    let secondSegment: Int32?
    let wordPrefix: String?
    public let prompts: [String: String]?
    public let defaultPrompt: String?
    let pooledMask: String?

    public let vocabularySize: Int?
    public let cacheLength: Int?
    let prefillLengths: [Int]?
    let decodeSlots: [Int]?
    let wholeChunks: Bool?
    public let cache: [CacheTensor]?
    public let prompt: Around?
    let stopIds: [Int32]?
    let stopStrings: [String]?

    /// The content of model.json.
    public init(_ json: Data) throws {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(ModelInfo.self, from: json)
    }
}

extension String {
    /// Where in a text a Unicode scalar stands.
    func place(_ scalar: Int) -> String.Index {
        unicodeScalars.index(unicodeScalars.startIndex, offsetBy: scalar)
    }
}
