"""python -m medrobust.cli"""

from medrobust.cli import main

main()
