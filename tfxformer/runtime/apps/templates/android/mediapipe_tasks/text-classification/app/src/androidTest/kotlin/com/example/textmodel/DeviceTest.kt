package com.example.textmodel

import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import org.junit.Assert.assertEquals
import org.junit.Test
import org.junit.runner.RunWith
import textmodel.ModelInfo
import textmodel.Vectors

@RunWith(AndroidJUnit4::class)
class DeviceTest {
    private val instrumentation = InstrumentationRegistry.getInstrumentation()

    private fun asset(name: String) = instrumentation.context.assets.open(name).bufferedReader().readText()

    /** MediaPipe on the device gives Python's probabilities, but for texts that are too long, which it cuts itself. */
    @Test
    fun answersAreThoseOfPython() = TextModel(instrumentation.targetContext).use { model ->
        val info = ModelInfo(asset("model.json"))
        for ((text, scores) in Vectors(info, asset("vectors.json")).wholeTexts()) {
            val found = model.classify(text).associate { it.label to it.score }
            info.labels.forEachIndexed { index, label ->
                assertEquals("$label of $text", scores[index], found.getValue(label), TOLERANCE)
            }
        }
    }

    private companion object {
        const val TOLERANCE = 0.02f // processors round int8 products differently
    }
}
