package textmodel

/** A word of a text, the text's [start] until [end] in characters (code points). */
class Word(val text: String, val start: Int, val end: Int)

/** The words of a text: runs of letters and digits; every sign and every Chinese or Japanese character by itself. */
fun words(text: String): List<Word> {
    val characters = text.codePoints().toArray()
    val found = mutableListOf<Word>()
    var start = 0
    while (start < characters.size) {
        var end = start + 1
        if (isLetter(characters[start])) while (end < characters.size && isLetter(characters[end])) end++
        if (!isSpace(characters[start])) found.add(Word(String(characters, start, end - start), start, end))
        start = end
    }
    return found
}

private fun isLetter(character: Int) = !isUnspaced(character) && (character == '_'.code || isAlphanumeric(character))

private fun isAlphanumeric(character: Int) =
    Character.isLetterOrDigit(character) || Character.getType(character).toByte() in
        setOf(Character.LETTER_NUMBER, Character.OTHER_NUMBER)

private fun isSpace(character: Int) =
    Character.isWhitespace(character) || Character.isSpaceChar(character) || character == 0x85

private fun isUnspaced(character: Int) =
    character in 0x3040..0x30ff || character in 0x3400..0x4dbf || character in 0x4e00..0x9fff ||
        character in 0xf900..0xfaff || character in 0x20000..0x3134f

/** A part of the pieces of words, from [start] until [end], that one call reads. */
internal class Window(val start: Int, val end: Int) {
    /** Pieces to the nearer end. */
    fun room(piece: Int) = minOf(piece - start, end - 1 - piece)
}

/** Windows of [size] pieces that share [overlap] of them. */
internal fun windows(count: Int, size: Int, overlap: Int): List<Window> {
    require(overlap < size) { "A window of $size tokens is not longer than the overlap of $overlap." }
    if (count <= size) return listOf(Window(0, count))
    val starts = 0 until maxOf(1, count - overlap) step (size - overlap)
    return starts.map { Window(it, minOf(it + size, count)) }
}
