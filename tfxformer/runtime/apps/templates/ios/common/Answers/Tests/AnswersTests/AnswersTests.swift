import Answers
import AnswersVectors
import Foundation
import XCTest

final class AnswersTests: XCTestCase {
    private func resource(_ name: String) throws -> Data {
        try Data(contentsOf: XCTUnwrap(Bundle.module.url(forResource: name, withExtension: "json")))
    }

    /// All between tokenizer and file, with the calls of both played back.
    func testAnswersAreThoseOfPython() throws {
        let vectors = try Vectors(resource("vectors"))
        XCTAssertFalse(vectors.answers.isEmpty)
        XCTAssertEqual(try vectors.differences(ModelInfo(resource("model"))), [])
    }
}
