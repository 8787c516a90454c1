package com.example.textmodel

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import org.junit.Assert.assertEquals
import org.junit.Test
import org.junit.runner.RunWith
import textmodel.Vectors

@RunWith(AndroidJUnit4::class)
class DeviceTest {
    private val instrumentation = InstrumentationRegistry.getInstrumentation()

    /** The tokenizer of the device gives Python's ids, and the file in its runtime Python's answers. */
    @Test
    fun answersAreThoseOfPython() = TextModel(instrumentation.targetContext).use { model ->
        val python = Vectors(model.info, instrumentation.context.asset("vectors.json"))
        assertEquals(emptyList<String>(), python.otherPieces(model.tokenizer))
        assertEquals(emptyList<String>(), python.differences(model.tokenizer, model.runner, TOLERANCE))
    }

    private companion object {
        const val TOLERANCE = 0.02f // processors round int8 products differently
    }
}
