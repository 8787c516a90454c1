// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "@@{name}",
    platforms: [.iOS(.v16)],
    products: [.library(name: "TextModel", targets: ["TextModel"])],
    dependencies: [
        .package(path: "Answers"),
        .package(url: "https://github.com/google-ai-edge/LiteRT", branch: "release/2.3.0"),
        .package(url: "https://github.com/huggingface/swift-transformers", from: "1.3.0"),
    ],
    targets: [
        .target(
            name: "TextModel",
            dependencies: [
                "Answers",
                .product(name: "TensorFlowLite", package: "LiteRT"),
                .product(name: "Tokenizers", package: "swift-transformers"),
            ],
            resources: [.copy("Model")]
        ),
        .testTarget(
            name: "TextModelTests",
            dependencies: ["TextModel", .product(name: "AnswersVectors", package: "Answers")],
            resources: [.copy("vectors.json")]
        ),
    ]
)
