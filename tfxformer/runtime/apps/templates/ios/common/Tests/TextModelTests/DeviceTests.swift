import Answers
import AnswersVectors
import Foundation
import XCTest

@testable import TextModel

/// On a simulator or a device: the tokenizer there gives Python's ids, and the file in its runtime Python's answers.
final class DeviceTests: XCTestCase {
    func testAnswersAreThoseOfPython() async throws {
        let file = try XCTUnwrap(Bundle.module.url(forResource: "vectors", withExtension: "json"))
        let python = try Vectors(Data(contentsOf: file))
        let model = try await TextModel()
        XCTAssertEqual(try python.otherIds(model.tokenizer), [])
        XCTAssertEqual(try model.differences(python), [])
    }
}

extension TextModel {
    fileprivate func differences(_ python: Vectors) throws -> [String] {
        if let decoder = runner as? Decoder { return try python.differences(info, tokenizer) { _ in decoder } }
        let model = try XCTUnwrap(runner as? Model)
        return try python.differences(info, tokenizer, model, tolerance: 0.02)  // processors round differently
    }
}
