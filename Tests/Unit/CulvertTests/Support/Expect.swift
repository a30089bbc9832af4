import Testing

/// `#expect` for conditions that call a move-only table: the macro would copy it to show it.
func expect(
  _ condition: Bool, _ comment: Comment? = nil,
  sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(condition, comment, sourceLocation: sourceLocation)
}
