/// The least power of two that is not less than `count`, at least 2: sizes of hash tables.
func powerOfTwo(atLeast count: Int) -> Int {
  var power = 2
  while power < count { power *= 2 }
  return power
}
