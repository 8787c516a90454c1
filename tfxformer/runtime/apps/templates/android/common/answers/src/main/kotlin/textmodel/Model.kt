package textmodel

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive

/** The tokens of a text without special tokens; [starts] and [ends] count characters (code points) of the text. */
class Pieces(val ids: IntArray, val starts: IntArray, val ends: IntArray)

/** What reads tokenizer.json. */
interface Tokenizer : AutoCloseable {
    fun pieces(text: String): Pieces

    /** The text of some ids, special tokens left out. */
    fun decode(ids: IntArray): String

    override fun close() = Unit
}

/** What runs a signature of the file. Arrays hold all numbers of a tensor, row after row. */
interface Model : AutoCloseable {
    fun run(signature: String, inputs: Map<String, IntArray>): Map<String, FloatArray>

    override fun close() = Unit
}

/** What runs a decoder's signatures, and keeps its cache from call to call. */
interface Decoder : AutoCloseable {
    /** Forgets the text so far. */
    fun reset()

    /** The logits of the next token; null from a prefill. */
    fun run(signature: String, tokens: IntArray, positions: IntArray): FloatArray?

    override fun close() = Unit
}

/** Special tokens before a text, between two, and after. */
class Around(val before: IntArray, val between: IntArray, val after: IntArray) {
    val count get() = before.size + between.size + after.size
}

/** A signature that reads [length] tokens. */
class Signature(val name: String, val length: Int)

/** A tensor of a decoder's cache. */
class CacheTensor(val name: String, val bytes: Int)

/** model.json: what the file is. */
class ModelInfo(private val json: JsonObject) {
    constructor(text: String) : this(Json.parseToJsonElement(text).jsonObject)

    val task = text("task")
    val paddingId = number("padding_id")
    val cutsOnTheLeft = text("truncation_side") == "left"

    val labels by lazy { strings("labels") }
    val problemType get() = json["problem_type"]?.takeIf { it != JsonNull }?.jsonPrimitive?.content
    val output by lazy { text("output") }
    val signatures by lazy {
        array("signatures").map { Signature(it.jsonObject.text("name"), it.jsonObject.number("length")) }
    }
    val maxLength by lazy { number("max_length") }
    val inputs by lazy { strings("inputs").toSet() }
    val single by lazy { around("single") }
    val pair by lazy { around("pair") }
    val secondSegment by lazy { number("second_segment") }
    val wordPrefix by lazy { text("word_prefix") }
    val prompts by lazy { json.getValue("prompts").jsonObject.mapValues { it.value.jsonPrimitive.content } }
    val defaultPrompt by lazy { text("default_prompt") }
    val pooledMask get() = json["pooled_mask"]?.takeIf { it != JsonNull }?.jsonPrimitive?.content

    val vocabularySize by lazy { number("vocabulary_size") }
    val cacheLength by lazy { number("cache_length") }
    val prefillLengths by lazy { integers("prefill_lengths") }
    val decodeSlots by lazy { integers("decode_slots") }
    val wholeChunks by lazy { json.getValue("whole_chunks").jsonPrimitive.boolean }
    val cache by lazy {
        array("cache").map { CacheTensor(it.jsonObject.text("name"), it.jsonObject.number("bytes")) }
    }
    val prompt by lazy { around("prompt") }
    val stopIds by lazy { integers("stop_ids").toSet() }
    val stopStrings by lazy { strings("stop_strings") }

    private fun text(name: String) = json.text(name)

    private fun number(name: String) = json.number(name)

    private fun array(name: String): JsonArray = json[name] as? JsonArray ?: JsonArray(emptyList())

    private fun strings(name: String) = array(name).map { it.jsonPrimitive.content }

    private fun integers(name: String) = array(name).integers()

    private fun around(name: String) = json.getValue(name).jsonObject.let {
        Around(it.integers("before"), it.integers("between"), it.integers("after"))
    }
}

internal fun JsonObject.text(name: String) = getValue(name).jsonPrimitive.content

internal fun JsonObject.number(name: String) = getValue(name).jsonPrimitive.int

internal fun JsonObject.integers(name: String) = getValue(name).jsonArray.integers()

internal fun List<JsonElement>.integers() = IntArray(size) { get(it).jsonPrimitive.int }
