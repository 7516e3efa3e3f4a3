"""Everyday words read aloud by many voices, to teach a speech tower to hear before it meets a scan.

    python -m datasets_scripts.spoken_words OUT --readers 4 --seed 0

No word of the list occurs in what the simulator says of the planes (wordings.py), so a tower taught on it has
heard none of the names that it is to find on the screen.
"""

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from datasets import Audio, ClassLabel, Features, List, Value
from scipy.signal import resample_poly
from tqdm import tqdm

from .espeak import SAMPLING_RATE_HZ as ESPEAK_RATE_HZ
from .espeak import Voice, synthesize
from .room_sound import RoomParameters, amplitude, in_room
from .schema import AUDIO, SAMPLING_RATE_HZ
from .voices import Group, draw_voice

START_S, END_S, LABEL = "start_s", "end_s", "label"
LEVEL_DB, LOUDNESS_SPREAD_DB = (-34.0, -22.0), 2.0
# Most words follow at once, as in a sentence; after some the reader takes breath.
GAP_SECONDS, BREATH_SECONDS, BREATH_SHARE = (0.0, 0.08), (0.1, 0.6), 0.15
SILENT_BELOW = 0.02  # of a word's loudest sample: what espeak-ng leaves before and after it

_WORDS = """
apple banana orange lemon cherry tomato potato carrot onion pepper butter cheese bread sugar honey coffee
water doorbell table chair carpet curtain kitchen garden bedroom cupboard ladder hammer bucket candle mirror
blanket pillow bottle kettle saucepan basket umbrella jacket trousers sweater button pocket leather cotton
ribbon diamond silver copper iron wooden plastic paper pencil letterbox envelope library teacher student
holiday birthday wedding football tennis swimming guitar piano trumpet violin concert theatre cinema
newspaper magazine television telephone computer camera battery engine bicycle motorbike tractor aeroplane
helicopter rocket airport station harbour village city country mountain river forest desert island ocean
valley meadow thunder lightning sunshine rainbow snowflake winter summer autumn Monday Wednesday Friday
January October December elephant tiger monkey rabbit horse donkey chicken penguin dolphin spider butterfly
squirrel hedgehog purple yellow orchard crimson seven eleven thirteen twenty hundred thousand million doctor
farmer soldier lawyer painter captain policeman brother neighbour grandfather quickly yesterday tomorrow
sometimes always never perhaps question answer story secret promise dancing singing cooking sleeping
laughing jumping travelling shopping pear peach plum grape mango melon apricot raspberry blueberry walnut
almond coconut cabbage lettuce spinach broccoli cucumber garlic mushroom pumpkin celery radish turnip
beetroot parsley basil cinnamon vinegar mustard ketchup pasta noodle pancake biscuit cookie chocolate
vanilla caramel pudding custard sausage bacon hamburger sandwich omelette porridge cereal yoghurt margarine
lemonade milkshake whisky champagne beer breakfast supper picnic recipe cafe restaurant waiter bathroom
hallway staircase ceiling balcony chimney fireplace radiator sofa armchair bookshelf wardrobe mattress duvet
toaster microwave freezer dishwasher vacuum broom mop sponge detergent soap shampoo toothbrush towel
scissors needle thimble zipper hanger ironing drawer cabinet lantern flashlight matches ashtray vase barrel
crate carton parcel luggage suitcase rucksack wallet purse bracelet necklace earring wristwatch sunglasses
raincoat overcoat cardigan pyjamas slippers sandals gloves scarf mittens helmet uniform apron costume
hairbrush perfume lipstick razor magnet screwdriver spanner pliers chisel shovel rake wheelbarrow lawnmower
greenhouse fence gate driveway pavement crossroads roundabout tunnel bridge lighthouse castle cathedral
chapel monastery museum gallery stadium gymnasium playground butcher pharmacy florist jeweller barber
laundry garage warehouse factory office courthouse prison embassy parliament university kindergarten
classroom blackboard notebook dictionary calculator crayon eraser stapler ruler compass globe atlas
encyclopedia novel poetry chapter paragraph alphabet grammar vocabulary language English Spanish French
Italian German Chinese Japanese Russian Portuguese Africa America Europe Australia London Paris Berlin
Madrid Dublin Edinburgh Manchester Birmingham Liverpool Oxford Cambridge Norway Sweden Denmark Finland
Poland Hungary Turkey Egypt Kenya Brazil Mexico Canada mosque temple pyramid statue sculpture canvas
portrait landscape photograph postcard stamp calendar diary alarm bedtime midnight afternoon evening Tuesday
Saturday February March April June July November spring century decade hour forever nowadays recently
suddenly slowly carefully happily angrily loudly tornado hurricane blizzard drizzle hailstone mist icicle
glacier volcano earthquake waterfall canyon cliff cave seaside lagoon swamp prairie jungle oasis pebble
gravel granite marble limestone emerald ruby sapphire pearl bronze steel aluminium titanium oxygen hydrogen
carbon uranium electricity magnetism gravity satellite planet comet galaxy universe telescope microscope
astronaut parachute submarine ferry sailboat canoe yacht anchor lifeboat tram taxi minibus caravan lorry
ambulance scooter skateboard rollercoaster carousel circus acrobat juggler magician clown puppet robot
wizard dragon unicorn giant princess emperor kingdom empire knight pirate treasure lion leopard panther
giraffe zebra rhinoceros hippopotamus crocodile alligator tortoise lizard python cobra frog toad salmon
herring mackerel lobster octopus jellyfish walrus seagull pelican flamingo ostrich peacock parrot pigeon
sparrow robin blackbird swallow woodpecker owl falcon eagle vulture hamster gerbil badger weasel otter
beaver reindeer antelope buffalo camel kangaroo koala panda gorilla chimpanzee mosquito beetle ladybird
caterpillar dragonfly grasshopper earthworm daffodil tulip rose lily poppy sunflower dandelion bluebell ivy
bamboo cactus willow oak maple birch cedar pine chestnut hazelnut fern moss seaweed petal blossom nurse
dentist surgeon plumber electrician carpenter mechanic engineer architect scientist chemist mathematician
philosopher journalist photographer actor actress musician composer conductor drummer violinist singer
ballerina athlete footballer goalkeeper referee champion trophy medal marathon gymnastics wrestling boxing
fencing archery cricket rugby hockey badminton volleyball basketball baseball golf snooker chess domino
lottery jackpot uncle auntie cousin nephew niece widow bachelor stranger visitor customer passenger tourist
refugee citizen minister president governor senator ambassador detective burglar criminal judge jury witness
sergeant colonel admiral accordion clarinet saxophone trombone flute harmonica tambourine xylophone
orchestra symphony opera melody rhythm chorus lullaby anthem software monitor printer website password
internet electronic microphone headphones loudspeaker projector elevator escalator turbine generator dynamo
propeller cockpit runway ticket passport customs currency dollar sterling penny cheque mortgage insurance
pension salary bargain auction advertisement victory defeat battle treaty weapon cannon rifle bullet shield
sword armour danger rescue accident emergency courage wisdom honesty jealousy curiosity loneliness happiness
sadness kindness friendship marriage divorce freedom justice democracy election campaign revolution believe
remember forget imagine discover invent explore borrow deliver purchase decorate celebrate apologise
complain whisper shout scream gallop stumble wander climb crawl swim dive juggle knit stitch weave polish
scrub sweep bake boil fry grill chop grate sprinkle delicious bitter salty crunchy greasy rotten stale
melted gigantic enormous narrow shallow hollow crooked slippery fluffy prickly rusty dusty filthy shiny
transparent colourful scarlet turquoise violet indigo maroon beige silvery golden brilliant gloomy cheerful
miserable furious exhausted nervous stubborn generous selfish lazy clever foolish mysterious dangerous
famous ancient modern popular traditional twelve fourteen fifteen sixteen seventeen eighteen nineteen thirty
forty fifty sixty seventy eighty ninety billion dozen quarter
"""
EVERYDAY_WORDS: tuple[str, ...] = tuple(_WORDS.split())


@dataclass(frozen=True)
class Reading:
    """Words read aloud by one voice in one room.

    `waveform` is mono float32 in -1..1 at 32 kHz; `start_s`, `end_s` (words,) are where each word is said, in
    order of time, and `words` (words,) its index in `EVERYDAY_WORDS`.
    """

    waveform: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    words: np.ndarray


def read_aloud(
    words_count: int = 128, readers: int = 20, seed: int = 0, voice_group: Group = "seen"
) -> Iterator[Reading]:
    """The first `words_count` everyday words, read by `readers` voices, each in an order of its own.

    Voice, speed, pitch, loudness and room are drawn for each reader, by the seed and the reader's number.

    Raises:
        ValueError: `words_count` is more than there are words, a number is not positive, or there is no such
            group of voices.
    """
    if not 1 <= words_count <= len(EVERYDAY_WORDS):
        raise ValueError(f"words_count is {words_count}; give a number from 1 to {len(EVERYDAY_WORDS)}.")
    if readers <= 0:
        raise ValueError(f"readers is {readers}; give a positive number.")
    for reader in range(readers):
        rng = np.random.default_rng([seed, reader])
        yield _reading(draw_voice(rng, voice_group), rng.permutation(words_count), rng)


def _reading(voice: Voice, words: np.ndarray, rng: np.random.Generator) -> Reading:
    level_db = rng.uniform(*LEVEL_DB)
    parts, starts, ends, length = [], [], [], 0
    for word in words.tolist():
        said = _said(EVERYDAY_WORDS[word], voice)
        wanted_db = level_db + rng.uniform(-LOUDNESS_SPREAD_DB, LOUDNESS_SPREAD_DB)
        said *= np.float32(amplitude(wanted_db) / np.sqrt(np.mean(said**2)))
        pause = BREATH_SECONDS if rng.random() < BREATH_SHARE else GAP_SECONDS
        silence = np.zeros(round(rng.uniform(*pause) * SAMPLING_RATE_HZ), dtype=np.float32)
        starts.append(length / SAMPLING_RATE_HZ)
        ends.append((length + len(said)) / SAMPLING_RATE_HZ)
        parts += [said, silence]
        length += len(said) + len(silence)
    waveform = in_room(np.concatenate(parts), SAMPLING_RATE_HZ, rng, RoomParameters())
    return Reading(np.clip(waveform, -1.0, 1.0), np.array(starts), np.array(ends), words)


def _said(word: str, voice: Voice) -> np.ndarray:
    """A word at 32 kHz, without the silence around it."""
    samples = resample_poly(synthesize(word, voice), SAMPLING_RATE_HZ, ESPEAK_RATE_HZ).astype(np.float32)
    sounding = np.flatnonzero(np.abs(samples) > SILENT_BELOW * np.abs(samples).max())
    return samples[sounding[0] : sounding[-1] + 1]


def write_readings(folder: Path, words_count: int, readers: int, seed: int) -> None:
    """Writes `folder/train.parquet`, for `load_dataset(folder)`: a row a reader, its audio as FLAC."""
    label = ClassLabel(names=list(EVERYDAY_WORDS[:words_count]))
    audio = Audio(sampling_rate=SAMPLING_RATE_HZ, decode=False)
    # The features' own encoder needs FFmpeg, so rows go to Parquet through their Arrow schema.
    times = List(Value("float64"))
    schema = Features({AUDIO: audio, START_S: times, END_S: times, LABEL: List(label)}).arrow_schema
    folder.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(folder / "train.parquet", schema) as writer:
        for reading in tqdm(read_aloud(words_count, readers, seed), total=readers, unit="reader"):
            encoded = io.BytesIO()
            soundfile.write(encoded, reading.waveform, SAMPLING_RATE_HZ, format="FLAC")
            row = {
                AUDIO: {"bytes": encoded.getvalue(), "path": None},
                START_S: reading.start_s.tolist(),
                END_S: reading.end_s.tolist(),
                LABEL: reading.words.tolist(),
            }
            writer.write_table(pa.Table.from_pylist([row], schema=schema))


def main() -> None:
    """Reads the command line and writes the readings."""
    parser = argparse.ArgumentParser(description="Everyday words read by many voices, as Parquet.")
    parser.add_argument("out", type=Path, help="folder to write train.parquet to")
    parser.add_argument("--words-count", type=int, default=128)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_readings(arguments.out, arguments.words_count, arguments.readers, arguments.seed)


if __name__ == "__main__":
    main()
