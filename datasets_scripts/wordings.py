"""What a sonographer says: wordings for every plane, and chat about other things, each in two groups.

A training hears the "seen" wordings; the "held_out" ones use the same names for a structure in other
sentences, so that an evaluation can ask whether a name was learnt and not a sentence.
"""

from dataclasses import dataclass

from .schema import BACKGROUND, PLANES
from .voices import Group, require_group

SEEN_TEMPLATES: tuple[str, ...] = (
    "Here, {name}.",
    "{name}.",
    "{name}, very nice.",
    "{name}, that looks absolutely fine.",
    "And there you can see {name}.",
    "Now we're looking at {name}.",
    "I'm just checking {name} now.",
    "Okay, that's {name} there.",
    "Lovely, a good view of {name}.",
    "You can see {name} here on the screen.",
    "So, next I'd like a picture of {name}.",
    "Everything looks normal with {name}.",
    "We are getting a very nice look at {name}.",
    "I can see {name} quite clearly from here.",
    "Let me freeze it here, so I can look at {name}.",
    "Right, I'm going to take a picture of {name}.",
    "If you look at the middle of the screen, that's {name}.",
)
HELD_OUT_TEMPLATES: tuple[str, ...] = (
    "There we go, {name}.",
    "Do you see {name} over there?",
    "Now I'm moving on to {name}.",
    "I'd like to spend a moment on {name}.",
    "{name}, all as it should be.",
    "Can we get {name}? Yes, we can.",
    "Let's have a closer look at {name}, shall we?",
)


@dataclass(frozen=True)
class StructureWordings:
    """Names that fill the templates, and whole sentences of either group."""

    names: tuple[str, ...]
    seen: tuple[str, ...]
    held_out: tuple[str, ...]


STRUCTURES: dict[str, StructureWordings] = {
    "heart_three_vessel_trachea": StructureWordings(
        names=(
            "the three vessels and the trachea",
            "the three vessel view",
            "the windpipe next to the three vessels",
            "the aortic arch and the ductal arch",
        ),
        seen=(
            "Three vessels in a line, and the trachea beside them.",
            "This is the three vessel trachea view.",
            "Those three circles are vessels, and the little ring is the windpipe.",
            "The two arches come together like the letter V.",
        ),
        held_out=(
            "One, two, three vessels, and there's the trachea.",
            "The arches meet in front of the windpipe.",
        ),
    ),
    "heart_four_chamber": StructureWordings(
        names=(
            "the four chamber view",
            "all four chambers of the heart",
            "the four chambers, beating away",
            "both ventricles and both atria",
        ),
        seen=(
            "Here is the four chamber view of the heart.",
            "That's baby's heart beating away, you can see all four chambers.",
            "Two chambers at the top and two at the bottom, that's all four.",
            "The four chambers look equal in size.",
        ),
        held_out=(
            "Count the chambers with me, there are four of them.",
            "That flickering is the heart, with its four chambers.",
        ),
    ),
    "abdomen": StructureWordings(
        names=(
            "baby's tummy",
            "the abdomen",
            "the stomach bubble",
            "the liver and the stomach",
            "the tummy circumference",
        ),
        seen=(
            "I'm measuring around the tummy now.",
            "The black bubble is the stomach, so baby has been swallowing.",
            "This is a slice through the abdomen.",
            "The liver is this grey part, and the stomach is the dark one.",
        ),
        held_out=(
            "I'll draw a circle around baby's tummy.",
            "The stomach is nicely filled in this abdomen.",
        ),
    ),
    "femur": StructureWordings(
        names=(
            "the thigh bone",
            "the femur",
            "baby's femur, the thigh bone",
            "the length of the femur",
        ),
        seen=(
            "I'm measuring the thigh bone from end to end.",
            "That bright line is the femur.",
            "A good long leg, this is the thigh bone.",
            "The femur is lying nice and flat for us.",
        ),
        held_out=(
            "Such a straight thigh bone.",
            "From this tip to that tip, that's the femur length.",
        ),
    ),
    "brain_transventricular": StructureWordings(
        names=(
            "the lateral ventricle of the brain",
            "the transventricular plane",
            "the choroid plexus in the ventricle",
            "the fluid spaces inside the head",
        ),
        seen=(
            "I'm measuring the width of the ventricle in baby's head.",
            "This is the brain, with the choroid plexus filling the ventricle.",
            "The fluid space in the brain is a normal width.",
            "That's the midline of the head, and the ventricle lies beside it.",
        ),
        held_out=(
            "The choroid plexus fills the space in the brain.",
            "How wide is the lateral ventricle? Well within range.",
        ),
    ),
    "kidneys": StructureWordings(
        names=(
            "both kidneys",
            "the kidneys",
            "baby's two kidneys",
            "the renal pelvis in each kidney",
        ),
        seen=(
            "Two kidneys, one each side.",
            "That's one kidney, and that's the other one.",
            "The kidneys are the two round shapes here.",
            "I'm checking that there is no extra fluid in the kidneys.",
        ),
        held_out=(
            "The kidneys look like two little beans.",
            "One kidney here, another kidney there.",
        ),
    ),
    "heart_left_outflow": StructureWordings(
        names=(
            "the left outflow tract",
            "the aorta coming out of the heart",
            "the left ventricular outflow",
            "the aorta",
        ),
        seen=(
            "The aorta leaves the left ventricle here.",
            "This vessel is the aorta, it takes blood to the body.",
            "That's the left outflow, it's one smooth line with the septum.",
            "Blood goes out to the body through the aorta.",
        ),
        held_out=(
            "Follow the left outflow and you come to the aorta.",
            "The aorta is the big vessel in the middle.",
        ),
    ),
    "lips": StructureWordings(
        names=(
            "the lips and the nose",
            "baby's lips",
            "the upper lip",
            "the mouth and the nostrils",
            "baby's mouth",
        ),
        seen=(
            "Two nostrils and the lips below them.",
            "The top lip is all in one piece.",
            "Look, baby is opening the mouth.",
            "I'm checking that the upper lip is closed.",
        ),
        held_out=(
            "A perfect little pair of lips.",
            "Nostrils, upper lip, lower lip, mouth, all there.",
        ),
    ),
    "profile": StructureWordings(
        names=(
            "baby's profile",
            "the profile",
            "the face from the side",
            "the forehead, the nose and the chin",
        ),
        seen=(
            "That's a beautiful profile.",
            "Forehead, nose, chin, baby is looking up at us.",
            "You can take this profile home as a picture.",
            "Baby's face from the side, what a sweet profile.",
        ),
        held_out=(
            "Who does baby look like in profile?",
            "The chin, the nose and the forehead, all from the side.",
        ),
    ),
    "heart_right_outflow": StructureWordings(
        names=(
            "the right outflow tract",
            "the pulmonary artery",
            "the right ventricular outflow",
            "the pulmonary artery and its branches",
        ),
        seen=(
            "The pulmonary artery leaves the right ventricle here.",
            "This vessel is the pulmonary artery, it takes blood to the lungs.",
            "That's the right outflow, crossing over the other one.",
            "Blood goes out to the lungs through the pulmonary artery.",
        ),
        held_out=(
            "Follow the right outflow and you come to the pulmonary artery.",
            "The pulmonary artery splits in two over here.",
        ),
    ),
    "brain_transcerebellar": StructureWordings(
        names=(
            "the cerebellum",
            "the cerebellum and the cisterna magna",
            "the transcerebellar plane",
            "the cerebellum at the back of the head",
        ),
        seen=(
            "The cerebellum looks like a little peanut.",
            "I'm measuring across the cerebellum.",
            "This dumbbell shape is the cerebellum.",
            "Behind the cerebellum I can measure the nuchal fold.",
        ),
        held_out=(
            "A nice round cerebellum on both sides.",
            "The cisterna magna lies behind the cerebellum.",
        ),
    ),
    "spine_coronal": StructureWordings(
        names=(
            "the coronal view of the spine",
            "the spine from behind",
            "the coronal spine",
            "the two rows of the spine, from behind",
        ),
        seen=(
            "From behind, the spine looks like a zip.",
            "Two rows of dots, that's the spine seen from behind.",
            "The two lines come together at the tailbone.",
            "The rows run side by side in the coronal view.",
        ),
        held_out=(
            "Like a railway track, that's the coronal view of the spine.",
            "From behind, both rows are even.",
        ),
    ),
    "spine_sagittal": StructureWordings(
        names=(
            "the sagittal view of the spine",
            "the spine lengthways",
            "the sagittal spine",
            "the whole curve of the backbone",
        ),
        seen=(
            "The backbone curves from the neck down to the tail.",
            "The skin covers the backbone all the way along.",
            "That's the spine lengthways, like a string of pearls.",
            "This is baby's backbone, the sagittal view.",
        ),
        held_out=(
            "All along the backbone the skin is closed.",
            "Lengthways, the curve of the spine is just right.",
        ),
    ),
    BACKGROUND: StructureWordings(
        names=(),
        seen=(
            "Let me see.",
            "Just a moment.",
            "I'm moving along now.",
            "Just finding my way.",
            "Let me try from another angle.",
            "I'll slide over a little.",
            "Baby is wriggling a lot.",
            "Let me turn the probe.",
            "I need a bit more gel.",
            "Nothing to see yet.",
            "I'm going to press a little harder.",
            "We'll wait until baby moves.",
            "Let me go around again.",
            "Sorry, it's a bit blurry.",
            "Bear with me while I look around.",
            "I'm looking for a better window.",
            "Not quite there yet.",
            "It's hiding from me.",
            "I'll come to that in a minute.",
            "Could you breathe in and hold it?",
            "Could you roll over slightly, please?",
            "I'm tilting the probe a tiny bit.",
        ),
        held_out=(
            "Hang on a second.",
            "I'm searching for the best position.",
            "Let me tilt it the other way.",
            "It keeps slipping away from me.",
            "I'll move further down.",
            "There's too much shadow here.",
        ),
    ),
}

CHAT: tuple[str, ...] = (
    "Raining again.",
    "What a lovely day.",
    "Did you find parking?",
    "It's freezing today.",
    "Any plans for the weekend?",
    "Have you had lunch?",
    "The traffic was terrible.",
    "It's quiet this morning.",
    "I could murder a coffee.",
    "The weather has been dreadful all week.",
    "They say it might snow on Thursday.",
    "I forgot my umbrella this morning.",
    "It's much warmer than last year.",
    "There was fog on the motorway.",
    "The sun is coming out at last.",
    "My garden needs the rain.",
    "What a windy night that was.",
    "We had thunder and lightning yesterday.",
    "I hope it stays dry for the barbecue.",
    "Did you have far to travel?",
    "Did you come by bus or by train?",
    "The car park is always full on Mondays.",
    "You pay for the parking at the machine downstairs.",
    "My train was late again this morning.",
    "They are digging up the road outside.",
    "I cycle to work when it's dry.",
    "The lifts are broken, I'm afraid.",
    "Have you eaten anything nice today?",
    "I had soup for lunch, it was rather good.",
    "The canteen makes a decent lasagne.",
    "My husband baked a lemon cake.",
    "There are biscuits in the waiting room.",
    "I can't start the day without coffee.",
    "We're having pizza tonight.",
    "Do you like spicy food?",
    "The new bakery sells wonderful bread.",
    "I burnt the toast this morning.",
    "Are you going anywhere for the holidays?",
    "We're flying to Spain in August.",
    "Last summer we went camping in Wales.",
    "I'd love to visit Italy one day.",
    "The beach was packed, but the sea was warm.",
    "We rented a cottage by the lake.",
    "I haven't booked any leave yet.",
    "Is your sister still living in Leeds?",
    "How are you getting on with the new house?",
    "We've been painting the kitchen yellow.",
    "Do you have any pets at home?",
    "My dog ate one of my shoes.",
    "The cat sleeps on my keyboard.",
    "Did you watch the match last night?",
    "My son plays football on Saturdays.",
    "I'm reading a very good book at the moment.",
    "Have you seen that new film?",
    "There's a concert in the park on Sunday.",
    "My daughter starts school in September.",
    "The music in the waiting room is awful.",
    "Is it too warm in this room for you?",
    "I can open the window if you like.",
    "You can hang your coat on the door.",
    "Sorry, my computer is slow today.",
    "Tuesdays are always our busiest.",
    "I'm off on Friday, thank goodness.",
    "Do you work nearby?",
    "My neighbour has bought a motorbike.",
    "We went shopping and spent far too much.",
    "The price of petrol is ridiculous.",
    "Christmas comes earlier every year.",
    "I was going to walk to work this morning, but then it rained again.",
    "There is a nice café around the corner, they make very good scones.",
    "My parents are coming over on Sunday, so I have to tidy everything.",
    "We drove down to Cornwall last summer and it poured every single day.",
    "They promised us sunshine for today, and now it's cloudy again.",
    "If you park behind the supermarket, the first two hours are free.",
    "I try to bring my own lunch, because the canteen is so expensive.",
    "The roadworks by the station have been going on for months now.",
    "We are thinking of a week in Greece, if the flights aren't too dear.",
    "My brother has started his own bakery, he gets up at four.",
    "It was so hot last night that nobody in our house could sleep.",
    "I've been trying to grow tomatoes, but the slugs keep eating them.",
)

HELD_OUT_CHAT: tuple[str, ...] = CHAT[::4]  # subjects and lengths follow each other, so each fourth has all


def chat_wordings(group: Group = "all") -> tuple[str, ...]:
    """Every sentence of a group that is about something else than the scan.

    Raises:
        ValueError: `group` is none of the groups.
    """
    require_group(group, "group")
    if group == "all":
        return CHAT
    return tuple(sentence for sentence in CHAT if (sentence in HELD_OUT_CHAT) == (group == "held_out"))


def plane_wordings(label: str, group: Group = "all") -> tuple[str, ...]:
    """Every sentence of a group that names the plane `label`; for background, what is said while searching.

    Raises:
        ValueError: `label` is none of the 14 planes, or `group` none of the groups.
    """
    require_group(group, "group")
    if label not in STRUCTURES:
        raise ValueError(f"There is no plane {label!r}; the planes are {', '.join(PLANES)}.")
    if group == "all":
        return plane_wordings(label, "seen") + plane_wordings(label, "held_out")
    structure = STRUCTURES[label]
    templates = SEEN_TEMPLATES if group == "seen" else HELD_OUT_TEMPLATES
    sentences = structure.seen if group == "seen" else structure.held_out
    filled = [template.format(name=name) for name in structure.names for template in templates]
    return tuple(sentence[0].upper() + sentence[1:] for sentence in filled) + sentences
