import Answers
import Foundation
import TensorFlowLite

extension Data {
    fileprivate init<T>(copying values: [T]) {
        self = values.withUnsafeBytes { Data($0) }
    }

    fileprivate var floats: [Float] {
        var values = [Float](repeating: 0, count: count / MemoryLayout<Float>.stride)
        _ = values.withUnsafeMutableBytes { copyBytes(to: $0) }
        return values
    }
}

/// The signatures of a file, each made ready when it is first run.
final class Signatures {
    private let interpreter: Interpreter
    private var ready = [String: SignatureRunner]()

    init(_ file: URL, threads: Int) throws {
        var options = Interpreter.Options()
        options.threadCount = threads
        interpreter = try Interpreter(modelPath: file.path, options: options)
    }

    func runner(_ name: String) throws -> SignatureRunner {
        if let found = ready[name] { return found }
        let made = try interpreter.signatureRunner(with: name)
        try made.allocateTensors()
        ready[name] = made
        return made
    }
}

/// Runs signatures of a file. One call at a time.
public final class LiteRTModel: Model {
    private let signatures: Signatures

    public init(_ file: URL, threads: Int = 4) throws {
        signatures = try Signatures(file, threads: threads)
    }

    public func run(_ signature: String, _ inputs: [String: [Int32]]) throws -> [String: [Float]] {
        let runner = try signatures.runner(signature)
        for (name, values) in inputs { try runner.copy(Data(copying: values), toInputNamed: name) }
        try runner.invoke()
        return try Dictionary(uniqueKeysWithValues: runner.outputs.map { ($0, try runner.output(named: $0).data.floats) })
    }
}

/// Runs a decoder's signatures: each reads the cache, and writes it anew.
public final class LiteRTDecoder: Decoder {
    private let signatures: Signatures
    private let tensors: [CacheTensor]
    private var cache = [String: Data]()

    public init(_ file: URL, _ info: ModelInfo, threads: Int = 4) throws {
        signatures = try Signatures(file, threads: threads)
        tensors = info.cache ?? []
        reset()
    }

    public func reset() {
        for tensor in tensors { cache[tensor.name] = Data(count: tensor.bytes) }
    }

    public func run(_ signature: String, tokens: [Int32], positions: [Int32]) throws -> [Float]? {
        let runner = try signatures.runner(signature)
        try runner.copy(Data(copying: tokens), toInputNamed: "tokens")
        try runner.copy(Data(copying: positions), toInputNamed: "input_pos")
        for (name, values) in cache { try runner.copy(values, toInputNamed: name) }
        try runner.invoke()
        for tensor in tensors { cache[tensor.name] = try runner.output(named: tensor.name).data }
        return runner.outputs.contains("logits") ? try runner.output(named: "logits").data.floats : nil
    }
}
