import Culvert
