// swift-tools-version: 5.9
// What lies between tokenizer and file, without either: `swift test` runs here, on macOS and Linux.
import PackageDescription

let package = Package(
    name: "Answers",
    products: [
        .library(name: "Answers", targets: ["Answers"]),
        .library(name: "AnswersVectors", targets: ["AnswersVectors"]),
    ],
    targets: [
        .target(name: "Answers"),
        .target(name: "AnswersVectors", dependencies: ["Answers"]),
        .testTarget(
            name: "AnswersTests",
            dependencies: ["AnswersVectors"],
            resources: [.copy("model.json"), .copy("vectors.json")]
        ),
    ]
)
