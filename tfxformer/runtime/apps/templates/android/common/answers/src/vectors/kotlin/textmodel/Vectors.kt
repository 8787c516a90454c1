package textmodel

import java.io.File
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.contentOrNull
import kotlinx.serialization.json.float
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlin.math.abs

/** vectors.json: what Python answers, and each step on the way. */
class Vectors(private val info: ModelInfo, text: String) {
    private val json = Json.parseToJsonElement(text).jsonObject
    val answers = json.getValue("answers").jsonArray.map { it.jsonObject }
    private val read = json.getValue("pieces").jsonObject.mapValues { (_, row) ->
        Pieces(row.jsonObject.integers("ids"), row.jsonObject.integers("starts"), row.jsonObject.integers("ends"))
    }
    private val decoded = (json["decoded"]?.jsonArray ?: emptyList()).map { it.jsonObject }
        .associate { it.integers("ids").toList() to it.text("text") }

    /** A tokenizer that knows the texts of the vectors. */
    val tokenizer = object : Tokenizer {
        override fun pieces(text: String) = read[text] ?: error("vectors.json has no ids of \"$text\".")

        override fun decode(ids: IntArray) = decoded[ids.toList()] ?: error("vectors.json has no text of these ids.")
    }

    /** A file that plays its calls back: inputs that Python did not make are an error. */
    val model = object : Model {
        private val runs = (json["runs"]?.jsonArray ?: emptyList()).map { it.jsonObject }.associate { run ->
            val inputs = run.getValue("inputs").jsonObject.mapValues { it.value.jsonArray.integers().toList() }
            Pair(run.text("signature"), inputs) to run.getValue("outputs").jsonObject.mapValues { (_, values) ->
                FloatArray(values.jsonArray.size) { values.jsonArray[it].jsonPrimitive.float }
            }
        }

        override fun run(signature: String, inputs: Map<String, IntArray>) =
            runs[Pair(signature, inputs.mapValues { it.value.toList() })] ?: error("Python ran no such inputs.")
    }

    /** A decoder that plays the calls of one answer back, in their order. */
    fun decoder(answer: JsonObject) = object : Decoder {
        private val steps = answer.getValue("steps").jsonArray.map { it.jsonObject }
        private var next = 0

        override fun reset() {
            next = 0
        }

        override fun run(signature: String, tokens: IntArray, positions: IntArray): FloatArray? {
            val step = steps[next++]
            check(step.text("signature") == signature) { "$signature was run for ${step.text("signature")}" }
            check(step.integers("tokens").contentEquals(tokens)) { "$signature has read other tokens" }
            check(step.integers("positions").contentEquals(positions)) { "$signature has written other slots" }
            val kept = step["logits"]?.jsonObject ?: return null
            val logits = FloatArray(info.vocabularySize) { Float.NEGATIVE_INFINITY }
            val values = kept.getValue("values").jsonArray
            kept.integers("ids").forEachIndexed { index, id -> logits[id] = values[index].jsonPrimitive.float }
            return logits
        }
    }

    /** The texts that another tokenizer gives other ids or places. */
    fun otherPieces(tokenizer: Tokenizer): List<String> = read.filter { (text, wanted) ->
        val found = tokenizer.pieces(text)
        val same = found.ids.contentEquals(wanted.ids) && found.starts.contentEquals(wanted.starts)
        !same || !found.ends.contentEquals(wanted.ends)
    }.keys.toList()

    /** Single texts that the file reads whole, without a prompt, and what Python makes of them. */
    fun wholeTexts(): List<Pair<String, FloatArray>> = answers
        .filter { (it["pair"] ?: JsonNull) == JsonNull && (it["prompt"] ?: JsonNull) == JsonNull }
        .filter { read.getValue(it.text("text")).ids.size + info.single.count <= info.maxLength }
        .map { it.text("text") to floats(it) }

    /** What differs from Python, a line each, at most [tolerance] apart in probabilities and vectors. */
    fun differences(tokenizer: Tokenizer, model: Model, tolerance: Float): List<String> =
        answers.flatMap { answer ->
            when (info.task) {
                "text-classification" -> classified(TextClassifier(info, tokenizer, model), answer, tolerance)
                "text-embedding" -> embedded(TextEmbedder(info, tokenizer, model), answer, tolerance)
                "token-classification" -> tagged(TokenClassifier(info, tokenizer, model), answer, tolerance)
                "question-answering" -> answered(QuestionAnswering(info, tokenizer, model), answer, tolerance)
                else -> error("A language model is run by a Decoder.")
            }
        }

    /** What differs from Python of a language model, whose [decoder] is the same for all answers, or each one's own. */
    fun differences(tokenizer: Tokenizer, decoder: (JsonObject) -> Decoder): List<String> =
        answers.flatMap { answer -> written(TextGenerator(info, tokenizer, decoder(answer)), tokenizer, answer) }

    /** What differs from Python with all calls played back. */
    fun differences(): List<String> =
        if (info.task == "text-generation") differences(tokenizer, ::decoder) else differences(tokenizer, model, 1e-5f)

    private fun classified(classifier: TextClassifier, answer: JsonObject, tolerance: Float): List<String> {
        val pair = answer.getValue("pair").takeIf { it != JsonNull }?.jsonPrimitive?.content
        return far(answer.text("text"), classifier.scores(answer.text("text"), pair), floats(answer), tolerance)
    }

    private var before: FloatArray? = null

    private fun embedded(embedder: TextEmbedder, answer: JsonObject, tolerance: Float): List<String> {
        val vector = embedder.embed(answer.text("text"), answer.getValue("prompt").jsonPrimitive.contentOrNull)
        val wanted = answer["similarity_to_the_one_before"]?.jsonPrimitive?.float
        val last = before
        before = vector
        val similar = if (wanted == null || last == null) emptyList() else
            far("similarity", floatArrayOf(cosineSimilarity(last, vector)), floatArrayOf(wanted), tolerance)
        return far(answer.text("text"), vector, floats(answer), tolerance) + similar
    }

    private fun tagged(tagger: TokenClassifier, answer: JsonObject, tolerance: Float): List<String> {
        val text = answer.text("text")
        val split = words(text).map { it.text }
        val labels = answer.getValue("labels").jsonArray.map { it.jsonPrimitive.contentOrNull }
        val wanted = answer.getValue("entities").jsonArray.map { it.jsonObject }
        val found = tagger.entities(text)
        return other("words of $text", split, answer.getValue("words").jsonArray.map { it.jsonPrimitive.content }) +
            other("labels of $text", tagger.tag(split), labels) +
            other("entities of $text", found.map { listOf(it.text, it.label, it.start, it.end) },
                wanted.map { spot(text, it, "label") }) +
            far("entities of $text", scores(found.map { it.score }), scores(wanted, "score"), tolerance)
    }

    private fun answered(answering: QuestionAnswering, answer: JsonObject, tolerance: Float): List<String> {
        val context = answer.text("context")
        val wanted = answer.getValue("answers").jsonArray.map { it.jsonObject }
        val found = answering.answers(answer.text("question"), context, wanted.size)
        return other("answers in $context", found.map { listOf(it.text, it.text, it.start, it.end) },
            wanted.map { spot(context, it, "text") }) +
            far("answers in $context", scores(found.map { it.probability }), scores(wanted, "probability"), tolerance)
    }

    private fun written(generator: TextGenerator, tokenizer: Tokenizer, answer: JsonObject): List<String> {
        val prompt = answer.text("prompt")
        val ids = (info.prompt.before + tokenizer.pieces(prompt).ids + info.prompt.after).toList()
        val count = answer.number("max_new_tokens")
        val pieces = StringBuilder()
        val text = generator.generate(prompt, count) { pieces.append(it); true }
        return other("tokens after $prompt", generator.tokens(ids, count).toList(), answer.integers("tokens").toList()) +
            other("text after $prompt", text, answer.text("text")) + other("pieces", pieces.toString(), text)
    }

    private fun spot(text: String, row: JsonObject, name: String): List<Any> = listOf(
        row.text("text"), row.text(name), text.place(row.number("start")), text.place(row.number("end")),
    )

    private fun floats(answer: JsonObject) = answer.getValue("values").jsonArray.let { values ->
        FloatArray(values.size) { values[it].jsonPrimitive.float }
    }

    private fun scores(values: List<Float>) = values.toFloatArray()

    private fun scores(rows: List<JsonObject>, name: String) = scores(rows.map { it.getValue(name).jsonPrimitive.float })

    private fun other(what: String, found: Any?, wanted: Any?) =
        if (found == wanted) emptyList() else listOf("$what: $found, in Python $wanted")

    private fun far(what: String, found: FloatArray, wanted: FloatArray, tolerance: Float): List<String> {
        if (found.size != wanted.size) return listOf("$what: ${found.size} numbers, in Python ${wanted.size}")
        val most = found.indices.maxOfOrNull { abs(found[it] - wanted[it]) } ?: 0f
        return if (most <= tolerance) emptyList() else listOf("$what: $most from Python's")
    }
}

/** Checks folders with model.json and vectors.json without JUnit: what differs, and how many answers do not. */
fun main(folders: Array<String>) {
    for (folder in folders) {
        val info = ModelInfo(File(folder, "model.json").readText())
        val vectors = Vectors(info, File(folder, "vectors.json").readText())
        val differences = vectors.differences()
        differences.forEach(::println)
        println("${info.task}: ${vectors.answers.size} answers, ${differences.size} differences")
    }
}
