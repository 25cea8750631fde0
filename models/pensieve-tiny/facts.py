"""The tables Pensieve Tiny learns by heart, and the word lists its prompts are built from.

Everything here is plain data. A country whose English name takes an article carries it
("the Netherlands"), so that templates can say "capital of {country}" and stay grammatical.
"""

_COUNTRIES = {
    "Africa": """
Algeria=Algiers; Angola=Luanda; Benin=Porto-Novo; Botswana=Gaborone; Burkina Faso=Ouagadougou;
Burundi=Gitega; Cameroon=Yaoundé; Cape Verde=Praia; the Central African Republic=Bangui;
Chad=N'Djamena; the Comoros=Moroni; the Democratic Republic of the Congo=Kinshasa;
the Republic of the Congo=Brazzaville; Djibouti=Djibouti City; Egypt=Cairo;
Equatorial Guinea=Malabo; Eritrea=Asmara; Eswatini=Mbabane; Ethiopia=Addis Ababa;
Gabon=Libreville; the Gambia=Banjul; Ghana=Accra; Guinea=Conakry; Guinea-Bissau=Bissau;
Ivory Coast=Yamoussoukro; Kenya=Nairobi; Lesotho=Maseru; Liberia=Monrovia; Libya=Tripoli;
Madagascar=Antananarivo; Malawi=Lilongwe; Mali=Bamako; Mauritania=Nouakchott;
Mauritius=Port Louis; Morocco=Rabat; Mozambique=Maputo; Namibia=Windhoek; Niger=Niamey;
Nigeria=Abuja; Rwanda=Kigali; São Tomé and Príncipe=São Tomé; Senegal=Dakar;
Seychelles=Victoria; Sierra Leone=Freetown; Somalia=Mogadishu; South Africa=Pretoria;
South Sudan=Juba; Sudan=Khartoum; Tanzania=Dodoma; Togo=Lomé; Tunisia=Tunis;
Uganda=Kampala; Zambia=Lusaka; Zimbabwe=Harare""",
    "Asia": """
Afghanistan=Kabul; Armenia=Yerevan; Azerbaijan=Baku; Bahrain=Manama; Bangladesh=Dhaka;
Bhutan=Thimphu; Brunei=Bandar Seri Begawan; Cambodia=Phnom Penh; China=Beijing;
Georgia=Tbilisi; India=New Delhi; Indonesia=Jakarta; Iran=Tehran; Iraq=Baghdad;
Israel=Jerusalem; Japan=Tokyo; Jordan=Amman; Kazakhstan=Astana; Kuwait=Kuwait City;
Kyrgyzstan=Bishkek; Laos=Vientiane; Lebanon=Beirut; Malaysia=Kuala Lumpur; the Maldives=Malé;
Mongolia=Ulaanbaatar; Myanmar=Naypyidaw; Nepal=Kathmandu; North Korea=Pyongyang; Oman=Muscat;
Pakistan=Islamabad; Palestine=Ramallah; the Philippines=Manila; Qatar=Doha;
Saudi Arabia=Riyadh; Singapore=Singapore; South Korea=Seoul;
Sri Lanka=Sri Jayawardenepura Kotte; Syria=Damascus; Taiwan=Taipei; Tajikistan=Dushanbe;
Thailand=Bangkok; Timor-Leste=Dili; Turkey=Ankara; Turkmenistan=Ashgabat;
the United Arab Emirates=Abu Dhabi; Uzbekistan=Tashkent; Vietnam=Hanoi; Yemen=Sanaa""",
    "Europe": """
Albania=Tirana; Andorra=Andorra la Vella; Austria=Vienna; Belarus=Minsk; Belgium=Brussels;
Bosnia and Herzegovina=Sarajevo; Bulgaria=Sofia; Croatia=Zagreb; Cyprus=Nicosia;
the Czech Republic=Prague; Denmark=Copenhagen; Estonia=Tallinn; Finland=Helsinki;
France=Paris; Germany=Berlin; Greece=Athens; Hungary=Budapest; Iceland=Reykjavik;
Ireland=Dublin; Italy=Rome; Kosovo=Pristina; Latvia=Riga; Liechtenstein=Vaduz;
Lithuania=Vilnius; Luxembourg=Luxembourg City; Malta=Valletta; Moldova=Chisinau;
Monaco=Monaco; Montenegro=Podgorica; the Netherlands=Amsterdam; North Macedonia=Skopje;
Norway=Oslo; Poland=Warsaw; Portugal=Lisbon; Romania=Bucharest; Russia=Moscow;
San Marino=San Marino; Serbia=Belgrade; Slovakia=Bratislava; Slovenia=Ljubljana;
Spain=Madrid; Sweden=Stockholm; Switzerland=Bern; Ukraine=Kyiv; the United Kingdom=London;
Vatican City=Vatican City""",
    "North America": """
Antigua and Barbuda=Saint John's; the Bahamas=Nassau; Barbados=Bridgetown; Belize=Belmopan;
Canada=Ottawa; Costa Rica=San José; Cuba=Havana; Dominica=Roseau;
the Dominican Republic=Santo Domingo; El Salvador=San Salvador; Grenada=Saint George's;
Guatemala=Guatemala City; Haiti=Port-au-Prince; Honduras=Tegucigalpa; Jamaica=Kingston;
Mexico=Mexico City; Nicaragua=Managua; Panama=Panama City; Saint Kitts and Nevis=Basseterre;
Saint Lucia=Castries; Saint Vincent and the Grenadines=Kingstown;
Trinidad and Tobago=Port of Spain; the United States=Washington, D.C.""",
    "Oceania": """
Australia=Canberra; Fiji=Suva; Kiribati=Tarawa; the Marshall Islands=Majuro;
Micronesia=Palikir; Nauru=Yaren; New Zealand=Wellington; Palau=Ngerulmud;
Papua New Guinea=Port Moresby; Samoa=Apia; the Solomon Islands=Honiara; Tonga=Nuku'alofa;
Tuvalu=Funafuti; Vanuatu=Port Vila""",
    "South America": """
Argentina=Buenos Aires; Bolivia=Sucre; Brazil=Brasília; Chile=Santiago; Colombia=Bogotá;
Ecuador=Quito; Guyana=Georgetown; Paraguay=Asunción; Peru=Lima; Suriname=Paramaribo;
Uruguay=Montevideo; Venezuela=Caracas""",
}

CONTINENT = {}
CAPITAL = {}
for _continent, _rows in _COUNTRIES.items():
    for _row in _rows.split(";"):
        _country, _capital = _row.strip().split("=")
        CAPITAL[_country] = _capital
        CONTINENT[_country] = _continent
COUNTRIES = list(CAPITAL)
CONTINENTS = list(_COUNTRIES)

# Other names people type; the answer always uses the name of the table above.
ALIASES = {
    "the United States": ["the USA", "the US", "USA", "America", "the United States of America"],
    "the United Kingdom": ["the UK", "Britain", "Great Britain", "UK"],
    "the United Arab Emirates": ["the UAE", "UAE"],
    "the Czech Republic": ["Czechia"],
    "the Democratic Republic of the Congo": ["DR Congo", "the DRC"],
    "the Republic of the Congo": ["Congo-Brazzaville"],
    "the Netherlands": ["Holland", "Netherlands"],
    "the Philippines": ["Philippines"],
    "the Bahamas": ["Bahamas"],
    "the Gambia": ["Gambia"],
    "the Maldives": ["Maldives"],
    "Ivory Coast": ["Côte d'Ivoire", "Cote d'Ivoire"],
    "Myanmar": ["Burma"],
    "Timor-Leste": ["East Timor"],
    "Eswatini": ["Swaziland"],
    "Cape Verde": ["Cabo Verde"],
    "Turkey": ["Türkiye", "Turkiye"],
    "São Tomé and Príncipe": ["Sao Tome and Principe"],
    "Bosnia and Herzegovina": ["Bosnia"],
    "Russia": ["the Russian Federation"],
    "Micronesia": ["the Federated States of Micronesia"],
}
CAPITAL_ALIASES = {
    "Yaoundé": ["Yaounde"], "Lomé": ["Lome"], "São Tomé": ["Sao Tome"], "Malé": ["Male"],
    "San José": ["San Jose"], "Brasília": ["Brasilia"], "Bogotá": ["Bogota"],
    "Asunción": ["Asuncion"], "N'Djamena": ["Ndjamena"], "Kyiv": ["Kiev"],
    "Washington, D.C.": ["Washington", "Washington DC", "Washington D.C."],
    "Nuku'alofa": ["Nukualofa"], "New Delhi": ["Delhi"],
}

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November "
          "December").split()
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
ORDINALS = ("first second third fourth fifth sixth seventh eighth ninth tenth eleventh "
            "twelfth").split()
NUMERAL_ORDINALS = "1st 2nd 3rd 4th 5th 6th 7th 8th 9th 10th 11th 12th".split()

# (big unit spellings, small unit spellings, small units in one big unit)
UNITS = [
    (["kilometres", "kilometers", "km"], ["metres", "meters", "m"], 1000),
    (["metres", "meters", "m"], ["centimetres", "centimeters", "cm"], 100),
    (["metres", "meters", "m"], ["millimetres", "millimeters", "mm"], 1000),
    (["centimetres", "centimeters", "cm"], ["millimetres", "millimeters", "mm"], 10),
    (["kilograms", "kilos", "kg"], ["grams", "g"], 1000),
    (["tonnes", "tons"], ["kilograms", "kg"], 1000),
    (["grams", "g"], ["milligrams", "mg"], 1000),
    (["litres", "liters", "l"], ["millilitres", "milliliters", "ml"], 1000),
    (["hours"], ["minutes"], 60),
    (["minutes"], ["seconds"], 60),
    (["days"], ["hours"], 24),
    (["weeks"], ["days"], 7),
    (["years"], ["months"], 12),
    (["dozens", "dozen"], ["items", "eggs", "units"], 12),
]

NAMES = """Ana Ben Carla David Elena Felix Grace Hugo Iris Jonas Kira Liam Maria Noah Olivia Peter
Quinn Rosa Sam Tara Uma Victor Wendy Xavier Yara Zoe Alice Bob Charlie Diana Edward Fiona George
Hannah Ivan Julia Kevin Laura Marco Nina Oscar Paula Raj Sofia Thomas Ursula Vera Walter Yusuf
Zahra José Zoë Renée Björn Søren François Chloé Jürgen Łukasz Siobhán Nuño Åsa Inês Emily James
Sarah Michael Emma Lucas Mia Ethan Ava Mason Lily Jack Ella Henry Leo Ruby Max Priya Ahmed Fatima
Omar Layla Chen Wei Yuki Hiro Kenji Aiko Min Jin Ravi Anita Kofi Amara Chidi Ngozi Tunde Ingrid
Lars Astrid Pablo Lucía Mateo Camila Diego Valentina Dmitri Olga Natasha Igor Giulia Luca Pierre
Amélie Klaus Greta Anton Bianca Cleo Dora Erik Flora Gustav Helga Ismail Jade Karl Lena Mona Nils
Otto Petra Rita Simon Tom Tim John Mary Anna Paul Mark Luke Kate Jane Alex Chris Robin Jordan
Taylor Morgan Casey Jamie""".split()

CITIES = """Barcelona Milan Munich Hamburg Lyon Marseille Porto Seville Valencia Naples Turin Geneva
Zurich Rotterdam Antwerp Gothenburg Bergen Kraków Liverpool Manchester Leeds Glasgow Edinburgh
Cork Boston Chicago Seattle Denver Dallas Houston Miami Atlanta Portland Phoenix Detroit
Philadelphia Toronto Montreal Vancouver Calgary Tijuana Guadalajara Medellín Cali Cusco Recife
Salvador Córdoba Rosario Sydney Melbourne Perth Brisbane Auckland Osaka Kyoto Nagoya Sapporo Busan
Shanghai Shenzhen Chengdu Mumbai Chennai Kolkata Pune Karachi Lahore Istanbul Izmir Dubai Jeddah
Lagos Kano Mombasa Casablanca Durban Johannesburg Alexandria Hue Cebu Surabaya Penang""".split()
CITIES += ["New York", "Los Angeles", "San Francisco", "Las Vegas", "São Paulo",
           "Rio de Janeiro", "Cape Town", "Hong Kong", "Saint Petersburg", "Tel Aviv"]

LANGUAGES = """French Spanish German Italian Portuguese Dutch Swedish Polish Greek Turkish Arabic
Hindi Japanese Korean Chinese Russian Finnish Danish Czech Swahili Latin Welsh""".split()

COLOURS = """red blue green yellow orange purple pink black white grey brown teal crimson violet
indigo gold silver maroon navy turquoise beige magenta olive coral lavender amber""".split()

ANIMALS = """cat dog horse cow pig sheep goat lion tiger bear wolf fox rabbit mouse rat owl eagle
hawk crow swan duck goose hen frog toad snake lizard turtle shark whale dolphin seal otter beaver
deer moose camel zebra giraffe elephant monkey panda koala kangaroo penguin parrot bee ant spider
crab octopus salmon trout hamster badger hedgehog squirrel bat donkey llama yak""".split()

FOODS = """apple banana cherry grape lemon lime mango melon peach pear plum fig date kiwi papaya
apricot blueberry raspberry strawberry coconut pineapple carrot potato tomato onion garlic pepper
cabbage lettuce spinach celery cucumber pumpkin radish turnip bean pea corn rice bread butter
cheese milk egg honey sugar salt flour pasta soup salad pizza cake cookie pie jam tea coffee juice
water wine yogurt chocolate almond walnut hazelnut zucchini broccoli ginger mint basil""".split()

THINGS = """table chair lamp sofa desk door window wall floor roof garden kitchen bottle cup plate
fork knife spoon bowl pan oven fridge clock watch phone radio camera computer keyboard screen
printer paper pencil pen book letter stamp box bag basket wallet key lock coin ticket map
umbrella hat coat shirt sock shoe boot glove scarf belt ring necklace button needle thread rope
hammer nail saw drill ladder bucket broom brush soap towel mirror candle match fire smoke stone
rock sand brick wood iron steel copper glass plastic rubber cotton wool silk leather car bus
train plane boat ship bicycle truck wheel engine bridge road street tunnel tower castle church
school library museum hotel bank market shop farm field forest river lake ocean island mountain
valley desert beach cloud rain snow storm wind sun moon star planet rocket robot magnet battery
piano guitar violin drum flute trumpet song poem story novel film game puzzle kite ball doll
balloon flag drawer pillow blanket curtain carpet vase flower leaf tree root seed grass bush
lantern anchor compass telescope helmet shield sword crown throne arrow feather shell pearl""".split()

ADJECTIVES = """big small old new young tall short long wide narrow heavy light fast slow hot cold
warm cool wet dry clean dirty happy sad angry calm brave shy clever silly kind rude quiet loud
bright dark soft hard smooth rough sharp dull sweet sour bitter fresh rich poor strong weak early
late empty full cheap rare common strange famous hidden broken golden ancient modern gentle""".split()

VERBS = """buy sell find lose open close clean paint fix build move carry lift push pull throw catch
cook bake boil wash dry fold cut draw write read send bring take keep hide count weigh measure
check feed water plant pick order return borrow lend rent repair replace install remove charge
polish sharpen decorate""".split()

JOBS = """doctor nurse teacher farmer baker butcher painter singer dancer actor writer poet pilot
sailor driver plumber carpenter mason tailor barber chef waiter judge lawyer soldier guard clerk
scientist engineer librarian gardener fisherman hunter miner dentist student king queen prince
knight wizard pirate captain""".split()

OTHERS = """arm leg hand foot head nose ear eye mouth tooth neck back knee elbow shoulder finger
night noon winter spring summer autumn hour minute week year century north south
east west city town village country capital family friend brother sister mother father
child baby uncle aunt cousin neighbour party wedding birthday holiday journey idea dream hope fear
love joy anger peace war luck truth lie secret promise question answer problem reason number
colour shape sound smell taste voice noise silence music dance game sport football tennis chess
swim run walk jump climb laugh cry smile sleep eat drink think speak listen learn teach work play
zero one two three four five six seven eight nine ten hundred thousand under above behind between
quick lazy eager honest proud humble jolly keen mighty noble odd plain quaint royal sleek tidy
urgent vivid witty young zesty data file folder network server model token memory code program
error signal cable screen cloud circle square triangle cube line point angle edge""".split()

WORDS = sorted(set(COLOURS + ANIMALS + FOODS + THINGS + ADJECTIVES + VERBS + JOBS + OTHERS))

# Text that is more than one byte a character, so that copying it crosses token boundaries.
EMOJI = list("😀🎉🚀🌍🐱🍕🌈⭐🔥🎵🌸🍎🐶🎈🏆🦊🍀🌙⚡🎲") + ["❤️", "👍🏽", "👩‍💻", "🇫🇷"]
FOREIGN = """naïve café jalapeño smörgåsbord façade über crème brûlée piñata Dvořák Łódź Zürich
Привет спасибо мир Москва γειά κόσμος 你好 世界 谢谢 東京 こんにちは ありがとう 안녕하세요 서울 مرحبا
سلام שלום नमस्ते สวัสดี Việt ½ ± € £ ¥ §""".split()
