package com.example.textmodel

import android.app.Activity
import android.os.Bundle
import android.widget.Button
import android.widget.EditText
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import java.util.concurrent.Executors

/** A field for a text, a button, and what the model makes of it. */
class MainActivity : Activity() {
    private val worker = Executors.newSingleThreadExecutor()
    private val model = lazy { TextModel(applicationContext) }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        val field = EditText(this).apply { hint = TextModel.HINT }
        val button = Button(this).apply { setText(R.string.run) }
        val answer = TextView(this).apply { setTextIsSelectable(true) }
        button.setOnClickListener {
            val text = field.text.toString()
            button.isEnabled = false
            worker.execute {
                val shown = runCatching { model.value.answer(text) }.getOrElse { it.message ?: it.toString() }
                runOnUiThread {
                    answer.text = shown
                    button.isEnabled = true
                }
            }
        }
        val column = LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            fitsSystemWindows = true
            listOf(field, button, answer).forEach(::addView)
        }
        setContentView(ScrollView(this).apply { addView(column) })
    }

    override fun onDestroy() {
        worker.execute { if (model.isInitialized()) model.value.close() }
        worker.shutdown()
        super.onDestroy()
    }
}
