package com.example.textmodel

import android.content.Context
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import org.tensorflow.lite.Interpreter
import textmodel.Decoder
import textmodel.Model
import textmodel.ModelInfo

/** A text file among the app's assets. */
fun Context.asset(name: String): String = assets.open(name).bufferedReader().use { it.readText() }

/** The file in LiteRT's interpreter, mapped from the app's assets. */
fun Context.interpreter(name: String = "model.tflite", threads: Int = 4): Interpreter =
    assets.openFd(name).use { asset ->
        FileInputStream(asset.fileDescriptor).channel.use { channel ->
            val file = channel.map(FileChannel.MapMode.READ_ONLY, asset.startOffset, asset.declaredLength)
            Interpreter(file, Interpreter.Options().apply { numThreads = threads })
        }
    }

private fun buffer(bytes: Int): ByteBuffer = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

private fun ByteBuffer.floats(): FloatArray {
    rewind()
    return FloatArray(capacity() / Float.SIZE_BYTES).also { asFloatBuffer().get(it) }
}

private fun Interpreter.outputs(signature: String, kept: Set<String> = emptySet()): Map<String, ByteBuffer> =
    getSignatureOutputs(signature).filter { it !in kept }.associateWith {
        buffer(getOutputTensorFromSignature(it, signature).numBytes())
    }

/** Runs signatures of a file. One call at a time. */
class LiteRTModel(private val interpreter: Interpreter) : Model {
    private val outputs = mutableMapOf<String, Map<String, ByteBuffer>>()

    @Synchronized
    override fun run(signature: String, inputs: Map<String, IntArray>): Map<String, FloatArray> {
        val given = inputs.mapValues { (_, values) -> arrayOf(values) as Any } // [1, S]
        val taken = outputs.getOrPut(signature) { interpreter.outputs(signature) }
        taken.values.forEach { it.rewind() }
        interpreter.runSignature(given, taken, signature)
        return taken.mapValues { (_, values) -> values.floats() }
    }

    override fun close() = interpreter.close()
}

/** Runs a decoder's signatures: each reads the cache, and writes it anew. */
class LiteRTDecoder(private val interpreter: Interpreter, info: ModelInfo) : Decoder {
    private val cache = info.cache.associate { it.name to buffer(it.bytes) }
    private val outputs = mutableMapOf<String, Map<String, ByteBuffer>>()

    override fun reset() = cache.values.forEach { values ->
        values.rewind()
        while (values.hasRemaining()) values.put(0)
    }

    @Synchronized
    override fun run(signature: String, tokens: IntArray, positions: IntArray): FloatArray? {
        val others = outputs.getOrPut(signature) { interpreter.outputs(signature, cache.keys) }
        (cache.values + others.values).forEach { it.rewind() }
        val given = cache + mapOf<String, Any>("tokens" to arrayOf(tokens), "input_pos" to positions)
        interpreter.runSignature(given, cache + others, signature)
        return others["logits"]?.floats()
    }

    override fun close() = interpreter.close()
}
