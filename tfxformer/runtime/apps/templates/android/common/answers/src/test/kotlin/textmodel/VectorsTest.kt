package textmodel

import org.junit.Assert.assertEquals
import org.junit.Test

class VectorsTest {
    private fun resource(name: String) = checkNotNull(javaClass.getResource("/$name")) { name }.readText()

    /** All between tokenizer and file, with the calls of both played back. */
    @Test
    fun answersAreThoseOfPython() {
        val info = ModelInfo(resource("model.json"))
        assertEquals(emptyList<String>(), Vectors(info, resource("vectors.json")).differences())
    }
}
