package com.example.textmodel

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import org.junit.Assert.assertEquals
import org.junit.Test
import org.junit.runner.RunWith
import textmodel.ModelInfo
import textmodel.Vectors
import textmodel.cosineSimilarity

@RunWith(AndroidJUnit4::class)
class DeviceTest {
    private val instrumentation = InstrumentationRegistry.getInstrumentation()

    private fun asset(name: String) = instrumentation.context.assets.open(name).bufferedReader().readText()

    /** MediaPipe on the device gives Python's vectors, but for texts that are too long, which it cuts itself. */
    @Test
    fun vectorsAreThoseOfPython() = TextModel(instrumentation.targetContext).use { model ->
        val info = ModelInfo(asset("model.json"))
        for ((text, vector) in Vectors(info, asset("vectors.json")).wholeTexts()) {
            assertEquals(text, 1f, cosineSimilarity(vector, model.embed(text)), TOLERANCE)
        }
    }

    private companion object {
        const val TOLERANCE = 0.01f // processors round int8 products differently
    }
}
