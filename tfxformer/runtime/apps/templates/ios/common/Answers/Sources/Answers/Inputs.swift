/// The tokens of one call: ids, and the segment of each.
struct Row {
    let ids: [Int32]
    let segments: [Int32]
}

extension ModelInfo {
    /// A text with its special tokens, cut to the length of the file.
    func row(_ ids: [Int32]) -> Row {
        let kept = cut(ids, maxLength! - single!.count)
        let whole = single!.before + kept + single!.after
        return Row(ids: whole, segments: [Int32](repeating: 0, count: whole.count))
    }

    /// A pair of texts with their special tokens; the longer one is cut first.
    func row(_ first: [Int32], _ second: [Int32]) -> Row {
        let lengths = pairLengths(first.count, second.count, maxLength! - pair!.count)
        return pairRow(cut(first, lengths.0), cut(second, lengths.1))
    }

    /// A pair of texts with their special tokens.
    func pairRow(_ first: [Int32], _ second: [Int32]) -> Row {
        let head = pair!.before + first + pair!.between
        let tail = second + pair!.after
        let segments = [Int32](repeating: 0, count: head.count) + [Int32](repeating: secondSegment!, count: tail.count)
        return Row(ids: head + tail, segments: segments)
    }

    private func cut(_ ids: [Int32], _ length: Int) -> [Int32] {
        truncationSide == "left" ? Array(ids.suffix(length)) : Array(ids.prefix(length))
    }

    /// The shortest signature that holds a row.
    func signature(_ row: Row) throws -> Signature {
        guard let found = signatures!.first(where: { row.ids.count <= $0.length }) else {
            throw ModelError("A row of \(row.ids.count) tokens is longer than the file reads.")
        }
        return found
    }
}

/// The lengths that a pair keeps of a total, as Hugging Face tokenizers cut "longest first".
func pairLengths(_ first: Int, _ second: Int, _ total: Int) -> (Int, Int) {
    if first + second <= total { return (first, second) }
    var short = min(first, second)
    var long = short > total ? short : max(short, total - short)
    if short + long > total {
        short = total / 2
        long = short + total % 2
    }
    return first > second ? (long, short) : (short, long)
}

extension Model {
    /// Runs a row; `hidden` tokens at its beginning are left out of a pooled vector.
    func run(_ info: ModelInfo, _ row: Row, hidden: Int = 0) throws -> [Float] {
        let signature = try info.signature(row)
        func padded(_ values: [Int32], _ padding: Int32) -> [Int32] {
            values + [Int32](repeating: padding, count: signature.length - values.count)
        }
        let ones = [Int32](repeating: 1, count: row.ids.count)
        var inputs = ["token_ids": padded(row.ids, info.paddingId), "padding_mask": padded(ones, 0)]
        if info.inputs!.contains("segment_ids") { inputs["segment_ids"] = padded(row.segments, 0) }
        if let name = info.pooledMask {
            inputs[name] = padded(row.ids.indices.map { $0 < hidden ? 0 : 1 }, 0)
        }
        return try run(signature.name, inputs)[info.output!]!
    }
}
