"""Draw a synthetic data set of textured shapes with exact masks."""

import argparse

from aa_plugins.datasets import LAYOUTS, write_shapes


def main() -> None:
    """Read the command line and write the data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("folder", metavar="OUT", help="folder to write; new or empty")
    parser.add_argument("--layout", choices=LAYOUTS, default="camvid", help="folder layout")
    parser.add_argument("--train", type=int, default=120, help="training images")
    parser.add_argument("--val", type=int, default=40, help="validation images")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(128, 160),
        metavar=("H", "W"),
        help="height and width of the images in pixels",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other images")
    arguments = parser.parse_args()
    try:
        write_shapes(**vars(arguments))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
