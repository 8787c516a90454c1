import Foundation

/// A word of a text, the text's `start` until `end` in Unicode scalars.
public struct Word {
    public let text: String
    public let start: Int
    public let end: Int
}

/// The words of a text: runs of letters and digits; every sign and every Chinese or Japanese character by itself.
public func words(_ text: String) -> [Word] {
    let scalars = Array(text.unicodeScalars)
    var found = [Word](), start = 0
    while start < scalars.count {
        var end = start + 1
        if isLetter(scalars[start]) {
            while end < scalars.count && isLetter(scalars[end]) { end += 1 }
        }
        if !isSpace(scalars[start]) {
            var word = String.UnicodeScalarView()
            word.append(contentsOf: scalars[start..<end])
            found.append(Word(text: String(word), start: start, end: end))
        }
        start = end
    }
    return found
}

private func isLetter(_ scalar: Unicode.Scalar) -> Bool {
    if isUnspaced(scalar.value) { return false }
    switch scalar.properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter, .decimalNumber,
        .letterNumber, .otherNumber:
        return true
    default:
        return scalar == "_"
    }
}

private func isSpace(_ scalar: Unicode.Scalar) -> Bool {
    scalar.properties.isWhitespace || (0x1c...0x1f).contains(scalar.value)
}

private func isUnspaced(_ value: UInt32) -> Bool {
    (0x3040...0x30ff).contains(value) || (0x3400...0x4dbf).contains(value) || (0x4e00...0x9fff).contains(value)
        || (0xf900...0xfaff).contains(value) || (0x20000...0x3134f).contains(value)
}

/// A part of the pieces of words that one call reads.
struct Window {
    let start: Int
    let end: Int

    /// Pieces to the nearer end.
    func room(_ piece: Int) -> Int { min(piece - start, end - 1 - piece) }
}

/// Windows of `size` pieces that share `overlap` of them.
func windows(_ count: Int, size: Int, overlap: Int) throws -> [Window] {
    guard overlap < size else {
        throw ModelError("A window of \(size) tokens is not longer than the overlap of \(overlap).")
    }
    if count <= size { return [Window(start: 0, end: count)] }
    return stride(from: 0, to: max(1, count - overlap), by: size - overlap).map {
        Window(start: $0, end: min($0 + size, count))
    }
}
